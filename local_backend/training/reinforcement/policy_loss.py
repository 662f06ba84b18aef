"""The loss of sampled answers under the current weights: clipped, with an optional KL penalty."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from local_backend.models.token_losses import TokenLosses
from local_backend.training.reinforcement.policy_examples import PolicyExample


def policy_loss(examples: Sequence[PolicyExample], losses: TokenLosses) -> torch.Tensor:
    """Return GRPO's loss summed over `examples`, a scalar; add to their statistics."""
    nll = torch.cat(losses.by_row())

    def constants(arrays: Sequence[np.ndarray]) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(arrays)).to(nll)

    settings, statistics = examples[0].settings, examples[0].statistics
    advantages = constants([e.advantages for e in examples])
    weights = constants([e.weights for e in examples])
    olds = [e.old for e in examples if e.old is not None]
    old = constants(olds) if olds else nll.detach()
    ratio = torch.exp(old - nll)
    low, high = 1 - settings.epsilon, 1 + settings.epsilon
    clipped = torch.clamp(ratio, low, high)
    loss = -torch.minimum(ratio * advantages, clipped * advantages)
    with torch.no_grad():
        is_clipped = ((ratio < low) & (advantages < 0)) | ((ratio > high) & (advantages > 0))
        statistics.clipped += is_clipped.sum()
    references = [e.reference for e in examples if e.reference is not None]
    if references:
        difference = nll - constants(references)
        divergence = torch.exp(difference) - difference - 1
        loss = loss + settings.beta * divergence
        statistics.divergence += divergence.detach().sum()
    return (loss * weights).sum()
