"""The losses of a micro-batch's tokens, whichever path of the forward pass computes them."""

from __future__ import annotations

from typing import Protocol

import torch


class TokenLosses(Protocol):
    """Negative log-likelihoods in nats of the loss tokens of a micro-batch, with gradients."""

    def sum(self) -> torch.Tensor:
        """Return the sum of all losses, a scalar. Cheaper than the sum over `by_row`."""

    def by_row(self) -> list[torch.Tensor]:
        """Return each sequence's losses, [its loss tokens], in the order of `flatten_rows`."""


def sum_rows(losses: TokenLosses) -> torch.Tensor:
    """Return each sequence's summed loss, [sequences], in the order of `flatten_rows`."""
    return torch.stack([row.sum() for row in losses.by_row()])
