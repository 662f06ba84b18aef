"""The loss of packed records: no padding, and a shared prefix only once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from local_backend.data.examples import Example, flatten_rows
from local_backend.packed.families import find_family
from local_backend.packed.layout import count_packed_tokens, pack_examples
from local_backend.packed.model import PackedModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from local_backend.models.token_losses import TokenLosses
    from local_backend.training.objectives import Objective


class PackedLoss:
    """The loss on the packed path. Use it only if `unsupported_reason` returns None."""

    name = "packed"
    count_tokens = staticmethod(count_packed_tokens)

    def __init__(
        self,
        model: PreTrainedModel,
        objective: Objective,
        dtype: torch.dtype,
        device: torch.device,
        *,
        reason: str,
        sharded: bool = False,
    ) -> None:
        family = find_family(model)
        assert family is not None, "unsupported_reason() refuses other models"
        self.objective, self.device, self.reason = objective, device, reason
        self.model = PackedModel(model, family, dtype, sharded=sharded)

    def __call__(self, examples: Sequence[Example]) -> torch.Tensor:
        """Return the objective's loss summed over `examples`, a scalar."""
        return self.reduce(examples, lambda losses: self.objective.loss(examples, losses))

    def reduce(
        self, examples: Sequence[Example], function: Callable[[TokenLosses], torch.Tensor]
    ) -> torch.Tensor:
        """Return what `function` makes of the losses of `examples` in place of the objective."""
        rows = flatten_rows(examples)
        share_prefix = self.model.rotary.have_equal_angles([len(row.ids) for row in rows])
        layout = pack_examples(rows, self.device, share_prefix=share_prefix)
        result: torch.Tensor = self.model(layout, function)
        return result

    def enable_gradient_checkpointing(self) -> bool:
        """Compute activations again in the backward pass. Return False if that is already on."""
        was_on, self.model.gradient_checkpointing = self.model.gradient_checkpointing, True
        return not was_on

    def fsdp_units(self) -> list[nn.Module]:
        """Return what FSDP gathers at a time: each block, then the rest."""
        return [*self.model.blocks, self.model]
