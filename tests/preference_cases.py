"""Pairs of answers as token ids: what preference losses are compared on, here and in TRL.

The model is that of policy_cases.py. All numbers come from numpy's generator.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from policy_cases import PROMPTS, VOCABULARY

LENGTHS = ((6, 9), (4, 1), (7, 3), (12, 5))
"""Lengths of the chosen and the rejected answer: two pairs to each prompt."""


def _pairs() -> list[dict[str, Any]]:
    draw = np.random.default_rng(11)
    pairs = []
    for number, lengths in enumerate(LENGTHS):
        chosen, rejected = (draw.integers(1, VOCABULARY, length).tolist() for length in lengths)
        reference = [-4.8 * length + float(draw.normal()) for length in lengths]
        pairs.append(
            {
                "prompt": list(PROMPTS[number // 2]),
                "chosen": chosen,
                "rejected": rejected,
                "reference": reference,
            }
        )
    return pairs


PAIRS = _pairs()
_PLAIN = {"beta": 0.1, "label_smoothing": 0.0, "simpo_gamma": 0.5}
CASES: dict[str, dict[str, Any]] = {
    "dpo": {**_PLAIN, "method": "dpo"},
    "dpo-strong": {"method": "dpo", "beta": 0.7, "label_smoothing": 0.0, "simpo_gamma": 0.5},
    "orpo": {**_PLAIN, "method": "orpo"},
    "simpo": {**_PLAIN, "method": "simpo"},
    "simpo-smoothed": {"method": "simpo", "beta": 2.0, "label_smoothing": 0.1, "simpo_gamma": 1.0},
}
