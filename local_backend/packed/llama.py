"""Forward pass of models with Llama's blocks on packed records, for training.

It computes what the model's own forward pass computes for each record alone, over the same
parameters (tests compare the two). It leaves out what training does not need: padding, gradients of
frozen weights, logits where no loss token is predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from local_backend.models.lora import LoraLinear
from local_backend.models.token_losses import TokenFunction, TokenLosses
from local_backend.packed.attention import GatherIndices, PackedAttention, build_gather_indices
from local_backend.packed.families import ModelFamily, base_linear
from local_backend.packed.layout import PackedLayout
from local_backend.packed.ops import (
    ChunkedTokenLosses,
    ChunkedTokenSum,
    FusedLinear,
    FusedLoraLinear,
    RmsNorm,
    SwiGlu,
    run_function,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class FusedProjection:
    """Linear layers that read one input, with frozen weights concatenated into one matrix.

    The layers' own weights become views of that matrix, so nothing is stored twice. The weights of
    a sharded model are whole only while their block runs, so they are concatenated in every call.
    """

    def __init__(
        self, layers: Sequence[nn.Module], dtype: torch.dtype, *, sharded: bool = False
    ) -> None:
        self.dtype = dtype
        self.base_layers = [_as_linear(base_linear(layer)) for layer in layers]
        self.lora_layers = [layer for layer in layers if isinstance(layer, LoraLinear)]
        self.trains_base_weights = any(base.weight.requires_grad for base in self.base_layers)
        self.in_features = self.base_layers[0].in_features
        self.fused_weight: torch.Tensor | None = None
        if self.trains_base_weights or sharded:
            return
        self.fused_weight = self._concat_with_lora_columns()
        heights = [base.out_features for base in self.base_layers]
        parts = torch.split(self.fused_weight, heights)
        for base, part in zip(self.base_layers, parts, strict=True):
            if base.weight.dtype == self.dtype:  # else the model keeps its own format for saving
                base.weight.data = part[:, : self.in_features]

    def _concat_with_lora_columns(self) -> torch.Tensor:
        """Return the layers' weights with zero columns beside them, one for each rank of the B."""
        ranks = sum(len(layer.lora_A) for layer in self.lora_layers)
        weight = self._concat_weights()
        return torch.cat([weight, weight.new_zeros(len(weight), ranks)], 1)

    def _concat_weights(self) -> torch.Tensor:
        return torch.cat([base.weight.detach().to(self.dtype) for base in self.base_layers])

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the outputs of all layers, concatenated: [tokens, in] -> [tokens, all outs]."""
        bias = self._concat_bias()
        if self.trains_base_weights:
            parts = [base.weight for base in self.base_layers]
            return run_function(FusedLinear, x, self._concat_weights(), bias, *parts)
        weight = self.fused_weight
        if weight is None:
            weight = self._concat_with_lora_columns()
        if not self.lora_layers or not self.lora_layers[0].enabled:
            return run_function(FusedLinear, x, weight[:, : self.in_features], bias)
        self._copy_lora_b(weight)
        pairs = [part for layer in self.lora_layers for part in (layer.lora_A, layer.lora_B)]
        scale = self.lora_layers[0].scaling  # one LoraSettings made them all
        dropped = self._apply_dropout(x)
        return run_function(FusedLoraLinear, x, dropped, weight, bias, scale, *pairs)

    def freeze(self) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Return the weight with the current B, the scaled A of all layers, and the bias.

        W x + B (s A x) is then the product of the weight and [x, s A x]. The A are None without
        adapters. Not for sharded models.
        """
        bias = self._concat_bias()
        if self.fused_weight is None:
            return self._concat_weights(), None, bias
        if not self.lora_layers:
            return self.fused_weight, None, bias
        if not self.lora_layers[0].enabled:
            return self.fused_weight[:, : self.in_features], None, bias
        self._copy_lora_b(self.fused_weight)
        down = torch.cat([layer.lora_A.detach() for layer in self.lora_layers])
        return self.fused_weight, down.mul_(self.lora_layers[0].scaling).to(self.dtype), bias

    def _copy_lora_b(self, weight: torch.Tensor) -> None:
        """Copy the current B beside the weights of their layers.

        In every call, because a change can't be detected: PyTorch's fused optimizers update weights
        without raising their version counter.
        """
        row, column = 0, self.in_features
        for layer in self.lora_layers:
            height, rank = layer.lora_B.shape
            # Through .data: `weight` is no leaf of the graph, and autograd must not see the copy.
            weight.data[row : row + height, column : column + rank] = layer.lora_B.data
            row, column = row + height, column + rank

    def _concat_bias(self) -> torch.Tensor | None:
        if all(base.bias is None for base in self.base_layers):
            return None
        return torch.cat([base.bias.to(self.dtype) for base in self.base_layers])

    def _apply_dropout(self, x: torch.Tensor) -> torch.Tensor:
        layer = self.lora_layers[0]
        return F.dropout(x, layer.dropout, True) if layer.dropout and layer.training else x


class SeparateProjections:
    """Linear layers that read one input, of which some have an adapter and some do not."""

    def __init__(
        self, layers: Sequence[nn.Module], dtype: torch.dtype, *, sharded: bool = False
    ) -> None:
        self.projections = [FusedProjection([layer], dtype, sharded=sharded) for layer in layers]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the outputs of all layers, concatenated: [tokens, in] -> [tokens, all outs]."""
        return torch.cat([projection(x) for projection in self.projections], -1)


def make_projection(
    layers: Sequence[nn.Module], dtype: torch.dtype, *, sharded: bool = False
) -> FusedProjection | SeparateProjections:
    """Return the layers as one product if all or none of them have adapters."""
    is_uniform = len({isinstance(layer, LoraLinear) for layer in layers}) == 1
    return (FusedProjection if is_uniform else SeparateProjections)(layers, dtype, sharded=sharded)


def _as_linear(layer: nn.Module) -> nn.Linear:
    assert isinstance(layer, nn.Linear), "unsupported_reason() refuses other layers"
    return layer


def _tensor(value: object) -> torch.Tensor:
    """Return a weight of a module, whose attributes PyTorch types as a tensor or a module."""
    assert isinstance(value, torch.Tensor)
    return value


class PackedBlock(nn.Module):
    """One block of the model."""

    def __init__(
        self, block: nn.Module, family: ModelFamily, dtype: torch.dtype, *, sharded: bool = False
    ) -> None:
        super().__init__()
        self.block = block
        q, k, v, out, gate, up, down = family.linear_layers(block)
        # A tuple, so that they are not registered a second time: FSDP must find each module once.
        self.norms = tuple(
            block.get_submodule(name) for name in (family.attention_norm, family.mlp_norm)
        )
        self.qkv, self.out, self.gate_up, self.down = (
            make_projection(layers, dtype, sharded=sharded)
            for layers in ([q, k, v], [out], [gate, up], [down])
        )
        self.dtype = dtype

    def forward(
        self,
        x: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        indices: GatherIndices,
        *,
        gradient_checkpointing: bool = False,
    ) -> torch.Tensor:
        """Return the block's output, float32 [tokens, width] as its input.

        With `gradient_checkpointing` only the input is kept, and the rest is computed again in the
        backward pass.
        """
        if gradient_checkpointing:
            output: torch.Tensor = checkpoint(
                self.compute, x, cos, sin, indices, use_reentrant=False
            )
            return output
        return self.compute(x, cos, sin, indices)

    def compute(
        self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, indices: GatherIndices
    ) -> torch.Tensor:
        """Compute attention, then the MLP, each added to the residual stream."""
        attention_norm, mlp_norm = self.norms
        qkv = self.qkv(rms_norm(x, attention_norm, self.dtype))
        mixed = run_function(PackedAttention, qkv, cos, sin, indices)
        x = x + self.out(mixed)
        gate_up = self.gate_up(rms_norm(x, mlp_norm, self.dtype))
        return x + self.down(run_function(SwiGlu, gate_up))


def rms_norm(x: torch.Tensor, norm: nn.Module, dtype: torch.dtype) -> torch.Tensor:
    """Return `x` normalized by one of the model's norms, in `dtype`."""
    return run_function(RmsNorm, x, norm.weight, norm.variance_epsilon, dtype)


class PackedTokenLosses:
    """The losses of one packed micro-batch (see TokenLosses)."""

    def __init__(
        self, hidden: torch.Tensor, head: torch.Tensor, layout: PackedLayout, *, needs_grad: bool
    ) -> None:
        self.hidden, self.head, self.layout, self.needs_grad = hidden, head, layout, needs_grad

    def sum(self) -> torch.Tensor:
        """Return the sum of all losses, a scalar. Cheaper than the sum over `by_row`."""
        return run_function(
            ChunkedTokenSum, self.hidden, self.head, self.layout.targets, self.needs_grad
        )

    def by_row(self) -> list[torch.Tensor]:
        """Return each sequence's losses, [its loss tokens], in the order of `flatten_rows`."""
        losses = run_function(ChunkedTokenLosses, self.hidden, self.head, self.layout.targets)
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
        hidden = self.hidden if temperature == 1 else self.hidden / temperature
        return run_function(
            ChunkedTokenSum,
            *(hidden, self.head, self.layout.targets, self.needs_grad),
            *(function, ordered.to(hidden.device)),
        )


class PackedLlama(nn.Module):
    """A model with Llama's blocks that takes packed records. Matrices are multiplied in `dtype`.

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
        decoder, self.dtype = model.get_submodule(family.decoder), dtype
        self.embedding = decoder.get_submodule(family.embedding)
        self.rotary_embedding = decoder.get_submodule(family.rotary_embedding)
        self.norm = decoder.get_submodule(family.norm)
        self.head = model.get_output_embeddings()
        self.heads: int = model.config.num_attention_heads
        self.kv_heads: int = model.config.num_key_value_heads
        self.blocks = nn.ModuleList(
            PackedBlock(block, family, dtype, sharded=sharded)
            for block in family.find_blocks(model)
        )
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
        x = F.embedding(layout.ids, _tensor(self.embedding.weight)).float()
        cos, sin = self.rotary_tables(layout.positions)
        indices = build_gather_indices(layout, self.heads, self.kv_heads, self.dtype)
        needs_grad = torch.is_grad_enabled()
        for block in self.blocks:
            checkpointed = self.gradient_checkpointing and needs_grad
            x = block(x, cos, sin, indices, gradient_checkpointing=checkpointed)
        # Only the positions that predict a loss token reach the output layer, which is most of a
        # small model's work.
        hidden = rms_norm(x.index_select(0, layout.logit_positions), self.norm, self.dtype)
        return reduce(
            PackedTokenLosses(hidden, _tensor(self.head.weight), layout, needs_grad=needs_grad)
        )

    def rotary_tables(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return cos and sin of the angles at `positions` [tokens], [tokens, 1, size / 2]."""
        # The model's own module computes them, with whatever scaling its configuration has. It
        # repeats the angles for both halves of a vector; apply_rotary needs them once.
        shape = torch.empty((1, 1), device=positions.device)
        cos, sin = self.rotary_embedding(shape, position_ids=positions[None])
        half = cos.shape[-1] // 2
        return cos[0, :, None, :half].contiguous(), sin[0, :, None, :half].contiguous()
