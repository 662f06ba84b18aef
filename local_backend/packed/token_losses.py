"""The losses of a packed micro-batch, from the hidden states that predict its loss tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from local_backend.models.token_losses import TokenFunction
from local_backend.packed.autograd import run_function
from local_backend.packed.cross_entropy import ChunkedTokenLosses, ChunkedTokenSum, LogitCap
from local_backend.packed.layout import PackedLayout


class PackedTokenLosses:
    """The losses of one packed micro-batch (see TokenLosses)."""

    def __init__(
        self,
        hidden: torch.Tensor,
        head: torch.Tensor,
        layout: PackedLayout,
        softcap: float | None,
        *,
        needs_grad: bool,
    ) -> None:
        self.hidden, self.head, self.layout, self.needs_grad = hidden, head, layout, needs_grad
        self.softcap = softcap

    def sum(self) -> torch.Tensor:
        """Return the sum of all losses, a scalar. Cheaper than the sum over `by_row`."""
        return run_function(
            ChunkedTokenSum,
            *(self.hidden, self.head, self.layout.targets, self.needs_grad, self._cap()),
        )

    def by_row(self) -> list[torch.Tensor]:
        """Return each sequence's losses, [its loss tokens], in the order of `flatten_rows`."""
        losses = run_function(
            ChunkedTokenLosses, self.hidden, self.head, self.layout.targets, self._cap()
        )
        rows = torch.split(losses, list(self.layout.loss_counts))
        ordered = sorted(zip(self.layout.example_order, rows, strict=True), key=lambda row: row[0])
        return [row for _, row in ordered]

    def map_sum(
        self,
        function: TokenFunction,
        constants: Sequence[torch.Tensor],
        temperature: float = 1.0,
    ) -> torch.Tensor:
        """Return the sum of `function` over all loss tokens, a scalar. As cheap as `sum`."""
        ordered = torch.cat([constants[i] for i in self.layout.example_order])
        cap, hidden = self._cap(temperature), self.hidden
        if cap is None and temperature != 1:
            hidden = hidden / temperature
        return run_function(
            ChunkedTokenSum,
            *(hidden, self.head, self.layout.targets, self.needs_grad, cap),
            *(function, ordered.to(hidden.device)),
        )

    def _cap(self, temperature: float = 1.0) -> LogitCap | None:
        return None if self.softcap is None else LogitCap(self.softcap, temperature)
