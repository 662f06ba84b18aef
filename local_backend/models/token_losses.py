"""The losses of a micro-batch's tokens, whichever path of the forward pass computes them."""

from __future__ import annotations

from typing import Protocol

import torch


class TokenLosses(Protocol):
    """Negative log-likelihoods in nats of the loss tokens of a micro-batch, with gradients."""

    def sum(self) -> torch.Tensor:
        """Return the sum of all losses, a scalar. Cheaper than the sum over `by_example`."""

    def by_example(self) -> list[torch.Tensor]:
        """Return each example's losses, [its loss tokens], in the order of the examples."""
