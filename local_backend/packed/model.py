"""Forward pass of a model on packed records, for training.

It computes what the model's own forward pass computes for each record alone, over the same
parameters (tests compare the two). It leaves out what training does not need: padding, gradients of
frozen weights, logits where no loss token is predicted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from local_backend.models.token_losses import TokenLosses
from local_backend.packed.attention import build_gather_indices
from local_backend.packed.block import LayerInputs, Norm, PackedBlock
from local_backend.packed.families import ModelFamily
from local_backend.packed.layers import AttentionLayer, describe_layers
from local_backend.packed.layout import PackedLayout
from local_backend.packed.rotary import RotaryTables
from local_backend.packed.token_losses import PackedTokenLosses

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PackedModel(nn.Module):
    """A model that takes packed records. Matrices are multiplied in `dtype`.

    Its submodules are the model's own, each registered once: FSDP gathers them when it is called.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        family: ModelFamily,
        dtype: torch.dtype,
        *,
        sharded: bool = False,
    ) -> None:
        super().__init__()
        decoder, config, self.dtype = model.get_submodule(family.decoder), model.config, dtype
        self.embedding = decoder.get_submodule(family.embedding)
        self.norm = decoder.get_submodule(family.norm)
        self.head = model.get_output_embeddings()
        self.final_norm = Norm(self.norm, family.norm_offset, family.centers)
        self.embedding_scale = _embedding_scale(self.embedding, config, family)
        self.logit_softcap: float | None = _setting(config, family.logit_softcap)
        divisor = _setting(config, family.logit_divisor) or 1.0
        self.logit_scale = (_setting(config, family.logit_multiplier) or 1.0) / divisor
        self.rotary_embedding = decoder.get_submodule(family.rotary_embedding)
        self.rotary = RotaryTables(self.rotary_embedding, config, family.rotary_layout)
        self.layers: list[AttentionLayer] = describe_layers(model, family)
        """How each block attends, first to last."""
        blocks = [
            PackedBlock(block, family, config, dtype, sharded=sharded)
            for block in family.find_blocks(model)
        ]
        self.blocks, self.last_parts = nn.ModuleList(blocks), blocks[-1].parts
        self.gradient_checkpointing = sharded
        """If True, activations are computed again in the backward pass instead of being kept. With
        them go the concatenated weights of a sharded model."""

    def forward(
        self, layout: PackedLayout, reduce: Callable[[TokenLosses], torch.Tensor]
    ) -> torch.Tensor:
        """Return what `reduce` (an objective's loss) makes of the layout's losses, a scalar.

        The losses are passed to `reduce` within this call, because the output layer of a sharded
        model is whole only here.
        """
        x, delta, inputs = self.embed(layout.ids), None, self.layer_inputs(layout)
        needs_grad = torch.is_grad_enabled()
        for block, layer in zip(self.blocks, self.layers, strict=True):
            checkpointed = self.gradient_checkpointing and needs_grad
            x, delta = block(x, delta, inputs[layer], gradient_checkpointing=checkpointed)
        # Only the positions that predict a loss token reach the output layer, which is most of a
        # small model's work.
        at = layout.logit_positions
        x = x.index_select(0, at)
        if delta is not None:
            x = self.last_parts.add(x, delta.index_select(0, at))
        hidden = self.head_input(x)
        head = self.head.weight
        assert isinstance(head, torch.Tensor)
        return reduce(
            PackedTokenLosses(hidden, head, layout, self.logit_softcap, needs_grad=needs_grad)
        )

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the residual stream before the first block, float32 [tokens, width]."""
        weight = self.embedding.weight
        assert isinstance(weight, torch.Tensor)
        x = F.embedding(ids, weight)
        if self.embedding_scale is not None:
            # In the format of the weights, to which transformers rounds the factor as well.
            x = x * torch.tensor(self.embedding_scale, dtype=x.dtype)
        return x.float()

    def head_input(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the output layer multiplies, from the residual stream after the last block.

        A factor on the logits is applied here, where there are fewer numbers.
        """
        hidden = self.final_norm(x, self.dtype)
        return hidden if self.logit_scale == 1 else hidden * self.logit_scale

    def layer_inputs(self, layout: PackedLayout) -> dict[AttentionLayer, LayerInputs]:
        """Return what the layers of each kind share."""
        first = self.layers[0].kind
        indices = build_gather_indices(layout, first.without_window(), self.dtype)
        windows = {layer.kind.window for layer in self.layers}
        by_window = {window: indices.with_window(window) for window in windows}
        tables = self.rotary.tables(self.layers, layout.positions, layout.sequence_lengths)
        return {
            layer: LayerInputs(by_window[layer.kind.window], *tables[layer.rotary])
            for layer in set(self.layers)
        }


def _embedding_scale(embedding: nn.Module, config: object, family: ModelFamily) -> float | None:
    scale = getattr(embedding, "embed_scale", None)
    if isinstance(scale, torch.Tensor):
        return float(scale)
    if family.scales_embedding_by_width:
        return math.sqrt(int(getattr(config, "hidden_size")))  # noqa: B009  # config is untyped
    return _setting(config, family.embedding_multiplier)


def _setting(config: object, name: str | None) -> float | None:
    value = getattr(config, name, None) if name else None
    return None if value is None else float(value)
