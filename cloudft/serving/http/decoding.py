"""The decoding parameters of a request, in the engine's terms."""

from __future__ import annotations

import secrets

from cloudft.inference import LocalGenerationConfig
from cloudft.serving.http.body import CommonBody

SEEDS = 2**32
"""Seeds that an engine takes: those of a request are counted modulo this."""


def read_decoding(
    body: CommonBody, choices: int, max_new_tokens: int
) -> list[LocalGenerationConfig]:
    """Return the decoding of each of so many answers.

    Without `temperature` an answer is greedy: so the models were evaluated. The choices of one seed
    have seeds of their own that follow from it; without a seed each is random.
    """
    temperature = body.temperature or 0.0
    top_p = 1.0 if body.top_p is None else body.top_p
    if top_p == 0:  # the likeliest token alone
        temperature, top_p = 0.0, 1.0
    seed = secrets.randbelow(SEEDS) if body.seed is None else body.seed
    return [
        LocalGenerationConfig(
            max_new_tokens, temperature, top_p, (seed + index) % SEEDS, max(body.top_k or 0, 0)
        )
        for index in range(choices)
    ]
