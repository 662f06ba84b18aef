"""Choose the next tokens from logits, with random numbers that follow from a prompt's seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

MASKED_LOGIT = -1e30
"""The logit of a token that top_k or top_p leaves out: finite, so that its product with 0 is 0."""


@dataclass(frozen=True)
class Sampling:
    """How answers are sampled. `temperature` 0 decodes greedily; `top_k` 0 keeps all tokens.

    `seeds` has one seed for each prompt.
    """

    max_new_tokens: int
    seeds: Sequence[int]
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0

    def cut(self, limit: int) -> Sampling:
        """Return the same with at most `limit` new tokens, and at least one."""
        return replace(self, max_new_tokens=max(1, min(limit, self.max_new_tokens)))


@dataclass(frozen=True)
class Sampled:
    """An answer: its tokens with the end token, if it `ended` with one.

    `entropy` is the mean entropy in nats of the distributions that its tokens were drawn from.
    """

    ids: list[int]
    ended: bool
    entropy: float


def draw_uniforms(sampling: Sampling, samples: int) -> torch.Tensor:
    """Return a number in (0, 1] for each token of each answer: [prompts, samples, new tokens]."""
    rows = []
    for seed in sampling.seeds:
        generator = torch.Generator().manual_seed(seed)
        rows.append(1 - torch.rand(samples, sampling.max_new_tokens, generator=generator))
    return torch.stack(rows)


def choose_tokens(
    logits: torch.Tensor, uniforms: torch.Tensor, sampling: Sampling
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a token for each row of `logits` [rows, vocabulary], and each row's entropy in nats.

    A token is the first whose cumulative probability reaches its row's number in `uniforms`
    [rows]: one number a row, where torch.multinomial draws one for each token of the vocabulary.
    """
    if not sampling.temperature:
        probabilities = logits.softmax(-1)
        tokens = logits.argmax(-1)
        return tokens, _entropy(logits, probabilities, tokens)
    logits = logits / sampling.temperature if sampling.temperature != 1 else logits
    if sampling.top_k or sampling.top_p < 1:
        logits = keep_top(logits, sampling.top_k, sampling.top_p)
    probabilities = logits.softmax(-1)
    cumulative = probabilities.cumsum(-1)
    # The last sum differs from 1 by rounding, and no number may lie beyond it.
    goal = uniforms[:, None] * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, goal)[:, 0].clamp_(max=logits.shape[-1] - 1)
    return tokens, _entropy(logits, probabilities, tokens)


def keep_top(logits: torch.Tensor, top_k: int, top_p: float) -> torch.Tensor:
    """Return `logits` without the tokens that are outside of the `top_k` best or the nucleus.

    The nucleus (Holtzman et al. 2020) is the smallest set of best tokens whose probability is at
    least `top_p`.
    """
    ordered, order = logits.sort(-1, descending=True)
    ranks = torch.arange(logits.shape[-1], device=logits.device)
    left_out = ranks >= top_k if top_k else torch.zeros_like(ranks, dtype=torch.bool)
    left_out = left_out.expand_as(ordered)
    if top_p < 1:
        kept = ordered.masked_fill(left_out, MASKED_LOGIT).softmax(-1)
        left_out = left_out | (kept.cumsum(-1) - kept >= top_p)
    return torch.empty_like(logits).scatter_(-1, order, ordered.masked_fill(left_out, MASKED_LOGIT))


def _entropy(
    logits: torch.Tensor, probabilities: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    """Return log(sum(exp z)) - sum(p z) of each row, which is -sum(p log p) without logarithms."""
    chosen = tokens[:, None]
    log_sum = logits.gather(1, chosen) - probabilities.gather(1, chosen).log()
    mean_logit = torch.bmm(probabilities[:, None], logits[:, :, None])
    return (log_sum - mean_logit[:, 0])[:, 0].clamp_(min=0)
