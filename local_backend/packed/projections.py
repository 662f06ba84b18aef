"""The linear layers of a block on the packed path: those that read one input are one product."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from local_backend.models.lora import LoraLinear
from local_backend.packed.autograd import run_function
from local_backend.packed.families import base_linear
from local_backend.packed.linear import FusedLinear, FusedLoraLinear


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


def adapter_columns(projection: object) -> int:
    """Return how many columns the adapters of a projection put beside its input."""
    if not isinstance(projection, FusedProjection):
        return 0
    return sum(len(layer.lora_A) for layer in projection.lora_layers)


def make_projection(
    layers: Sequence[nn.Module], dtype: torch.dtype, *, sharded: bool = False
) -> FusedProjection | SeparateProjections:
    """Return the layers as one product if all or none of them have adapters."""
    is_uniform = len({isinstance(layer, LoraLinear) for layer in layers}) == 1
    return (FusedProjection if is_uniform else SeparateProjections)(layers, dtype, sharded=sharded)


def _as_linear(layer: nn.Module) -> nn.Linear:
    assert isinstance(layer, nn.Linear), "unsupported_reason() refuses other layers"
    return layer
