"""The losses of a micro-batch's tokens, whichever path of the forward pass computes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

TokenFunction = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Makes a loss of each token, [tokens], from the negative log-likelihoods of some tokens, [tokens],
and their constants, [tokens, constants]. A token's loss depends on no other token.
"""


class TokenLosses(Protocol):
    """Negative log-likelihoods in nats of the loss tokens of a micro-batch, with gradients."""

    def sum(self) -> torch.Tensor:
        """Return the sum of all losses, a scalar. Cheaper than the sum over `by_row`."""

    def by_row(self) -> list[torch.Tensor]:
        """Return each sequence's losses, [its loss tokens], in the order of `flatten_rows`."""

    def map_sum(
        self,
        function: TokenFunction,
        constants: Sequence[torch.Tensor],
        temperature: float = 1.0,
    ) -> torch.Tensor:
        """Return the sum of `function` over all loss tokens, a scalar. As cheap as `sum`.

        `constants` has a tensor [its loss tokens, constants] for each sequence, in the order of
        `flatten_rows`. The likelihoods are those at `temperature`.
        """
