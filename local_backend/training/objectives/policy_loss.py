"""The loss of group-relative policy optimization (GRPO; Shao et al. 2024, DeepSeekMath).

A token of an answer with advantage A has the loss -min(r A, clip(r, 1 - epsilon, 1 + epsilon) A) +
beta r k, where r is the ratio of its probability to that when it was sampled, and k an estimate of
the divergence from the reference model (Schulman 2020, "Approximating KL divergence", k3). With the
factor r, as in DeepSeek-V3.2 and TRL 1.16, the gradient is that of the divergence itself; without
it, it is not, even where r is 1. The loss types, which are ways to take a mean over tokens, have
TRL's names (GRPOConfig.loss_type).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from local_backend.data.examples import Example
from local_backend.models.token_losses import TokenLosses

LOSS_TYPES = ("dapo", "grpo", "bnpo", "dr_grpo")


@dataclass(frozen=True)
class PolicySettings:
    """Settings of the loss, with the field names of trl.GRPOConfig.

    `max_new_tokens` is the length that `dr_grpo` divides by.
    """

    loss_type: str = "dapo"
    beta: float = 0.0
    epsilon: float = 0.2
    temperature: float = 1.0
    max_new_tokens: int = 1


@dataclass(frozen=True)
class Rollout(Example):
    """A prompt with an answer that was sampled for it; the answer's tokens carry loss.

    `old_log_probs` [loss tokens] are those when it was sampled; None for the current ones, which is
    the same before the first update with it. `reference_log_probs` [loss tokens] are those of the
    reference model; needed if beta is not 0.
    """

    advantage: float
    old_log_probs: np.ndarray | None = None
    reference_log_probs: np.ndarray | None = None


@dataclass
class PolicyStatistics:
    """Sums over the tokens of a step, for its point of the curves."""

    tokens: int = 0
    kl: torch.Tensor | float = 0.0
    clipped: torch.Tensor | float = 0.0
    """Tensors, so that a GPU need not be waited for."""

    def means(self) -> dict[str, float]:
        """Return the mean divergence in nats, and the share of tokens that were clipped."""
        count = max(1, self.tokens)
        return {"kl": float(self.kl) / count, "clipFraction": float(self.clipped) / count}


@dataclass
class PolicyLoss:
    """The loss of rollouts; counts what happens to their tokens in `statistics`."""

    settings: PolicySettings
    statistics: PolicyStatistics = field(default_factory=PolicyStatistics)

    def count(self, rollouts: Sequence[Example]) -> float:
        """Return the denominator of the mean loss of a batch."""
        kind = self.settings.loss_type
        if kind == "grpo":
            return len(rollouts)
        if kind == "dr_grpo":
            return len(rollouts) * self.settings.max_new_tokens
        return sum(int(rollout.loss_mask.sum()) for rollout in rollouts)

    def sum(self, rollouts: Sequence[Rollout], losses: TokenLosses) -> torch.Tensor:
        """Return the loss summed over `rollouts`, a scalar."""
        constants = [self._constants(rollout) for rollout in rollouts]
        return losses.map_sum(self.token_losses, constants, self.settings.temperature)

    def _constants(self, rollout: Rollout) -> torch.Tensor:
        """Return each token's weight, advantage, old and reference log-probability."""
        count = int(rollout.loss_mask.sum())
        weight = 1 / count if self.settings.loss_type == "grpo" else 1.0
        table = np.full((count, 4), np.nan, dtype=np.float32)
        table[:, 0], table[:, 1] = weight, rollout.advantage
        if rollout.old_log_probs is not None:
            table[:, 2] = rollout.old_log_probs
        if rollout.reference_log_probs is not None:
            table[:, 3] = rollout.reference_log_probs
        return torch.from_numpy(table)

    def token_losses(self, losses: torch.Tensor, constants: torch.Tensor) -> torch.Tensor:
        """Return the loss of each token from its negative log-likelihood."""
        weight, advantage, old, reference = constants.unbind(1)
        log_probs, epsilon = -losses, self.settings.epsilon
        ratio = (log_probs - torch.where(old.isnan(), log_probs.detach(), old)).exp()
        clipped = ratio.clamp(1 - epsilon, 1 + epsilon)
        result = -torch.minimum(ratio * advantage, clipped * advantage)
        is_clipped = ((ratio < 1 - epsilon) & (advantage < 0)) | (
            (ratio > 1 + epsilon) & (advantage > 0)
        )
        self.statistics.tokens += len(losses)
        self.statistics.clipped += is_clipped.sum()
        if self.settings.beta:
            distance = reference - log_probs
            divergence = distance.exp() - distance - 1
            self.statistics.kl += divergence.detach().sum()
            result = result + self.settings.beta * ratio * divergence
        return weight * result
