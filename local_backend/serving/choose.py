"""Draw the next token of a row, with the row's own random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from local_backend.models.sampling import MASKED_LOGIT

DRAWN_AT_ONCE = 64
"""Random numbers that a row draws together."""
NUCLEUS = 1024
"""Likeliest tokens in which a nucleus is looked for first: sorting all of them takes longer."""


@dataclass
class RowSampling:
    """How one row's tokens are chosen. `temperature` 0 is greedy; `top_k` 0 keeps all tokens."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    _numbers: list[float] = field(default_factory=list)
    _generator: torch.Generator | None = None

    def draw(self) -> float:
        """Return the row's next random number, in (0, 1]: it follows from the seed alone."""
        if not self._numbers:
            if self._generator is None:
                self._generator = torch.Generator().manual_seed(self.seed)
            drawn = 1 - torch.rand(DRAWN_AT_ONCE, generator=self._generator)
            self._numbers = drawn.tolist()[::-1]
        return self._numbers.pop()


def draw_token(logits: torch.Tensor, row: RowSampling) -> int:
    """Return the first token whose cumulative probability reaches the row's next number."""
    # The best token has 0: no temperature, however low, makes an infinite number of that. The
    # smallest that float32 has stands for those below it, which would divide by 0.
    lowest = torch.finfo(torch.float32).tiny
    scaled = (logits.float() - logits.max()) / max(row.temperature, lowest)
    if row.top_k or row.top_p < 1:
        values, tokens = _keep_top(scaled, row)
    else:
        values, tokens = scaled, None
    cumulative = values.softmax(-1).cumsum(-1)
    # The last sum differs from 1 by rounding, and no number may lie beyond it.
    goal = cumulative[-1:] * row.draw()
    at = int(torch.searchsorted(cumulative, goal)[0].clamp_(max=len(values) - 1))
    return at if tokens is None else int(tokens[at])


def _keep_top(logits: torch.Tensor, row: RowSampling) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits of the `top_k` best tokens or of the nucleus, and these tokens."""
    size = len(logits)
    count = min(row.top_k or size, size)
    if row.top_p >= 1:
        best = logits.topk(count)
        return best.values, best.indices
    maximum = logits.max()
    total = (logits - maximum).exp().sum()
    for width in (min(NUCLEUS, count), count):
        best = logits.topk(width)
        weights = (best.values - maximum).exp()
        # Of `top_k` tokens, the nucleus is one of them alone.
        whole = weights.sum() if width == count and row.top_k else total
        before = weights.cumsum(-1) - weights
        kept = int((before < row.top_p * whole).sum())
        if width == count or (kept < width and not row.top_k):
            break
    return best.values[: max(1, kept)], best.indices[: max(1, kept)]


@dataclass(frozen=True)
class ScoredToken:
    """A token and ln p of it, with the likeliest tokens of its position."""

    token: int
    logprob: float
    top: Sequence[tuple[int, float]] = ()


def score_token(logits: torch.Tensor, token: int, top: int) -> ScoredToken:
    """Return ln p of a token at temperature 1, and the `top` likeliest tokens."""
    logprobs = logits.float().log_softmax(-1)
    best = logprobs.topk(min(top, len(logprobs)))
    pairs = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
    return ScoredToken(token, float(logprobs[token]), pairs)


def mask_logits(logits: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """Return logits [vocabulary] of which only those of `allowed` tokens can be chosen."""
    return logits.masked_fill(~allowed, MASKED_LOGIT)
