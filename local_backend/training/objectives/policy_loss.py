"""The loss of group-relative policy optimization (GRPO; Shao et al. 2024, DeepSeekMath).

A token of an answer with advantage A has the loss -min(r A, clip(r, 1 - epsilon, 1 + epsilon) A) +
beta r k, where r is the ratio of its probability to that when it was sampled, and k an estimate of
the divergence from the reference model (Schulman 2020, "Approximating KL divergence", k3). With the
factor r, as in DeepSeek-V3.2 and TRL 1.16, the gradient is that of the divergence itself; without
it, it is not, even where r is 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class PolicySettings:
    """Settings of the loss, with the field names of trl.GRPOConfig."""

    beta: float = 0.0
    epsilon: float = 0.2
    temperature: float = 1.0


@dataclass
class PolicyStatistics:
    """Sums over the tokens of a step, for its point of the curves."""

    tokens: int = 0
    kl: torch.Tensor | float = 0.0
    clipped: torch.Tensor | float = 0.0
    """Tensors, so that a GPU need not be waited for."""


@dataclass
class PolicyLoss:
    """The loss of the tokens of answers; counts what happens to them in `statistics`."""

    settings: PolicySettings
    statistics: PolicyStatistics = field(default_factory=PolicyStatistics)

    def token_losses(self, losses: torch.Tensor, constants: torch.Tensor) -> torch.Tensor:
        """Return the loss of each token from its negative log-likelihood.

        `constants` [tokens, 4] are the token's weight, its advantage, and its log-probability when
        it was sampled (NaN: the current one) and under the reference model (NaN without beta).
        """
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
