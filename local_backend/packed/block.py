"""One block of a model on packed records, for training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from local_backend.packed.attention import AttentionKind, GatherIndices, PackedAttention
from local_backend.packed.families import ModelFamily
from local_backend.packed.gated import gate
from local_backend.packed.ops import QueryKeyNorm, RmsNorm, run_function
from local_backend.packed.projections import make_projection

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

Projection = Callable[[torch.Tensor], torch.Tensor]
"""Linear layers of one input as one: [tokens, in] -> [tokens, all outs]."""


@dataclass(frozen=True)
class LayerInputs:
    """What all layers of one kind share: the indices of their rows, and the angles of positions.

    `cos` and `sin` are [tokens, 1, rotations], float32; no rotations for layers without positions.
    """

    indices: GatherIndices
    cos: torch.Tensor
    sin: torch.Tensor


@dataclass(frozen=True)
class Norm:
    """A norm of the model by its root mean square, with what is added to its weights."""

    module: nn.Module
    offset: float

    @property
    def weight(self) -> torch.Tensor:
        """Return the weights that multiply what is normalized, [width]."""
        weight = self.module.weight
        assert isinstance(weight, torch.Tensor)
        return weight.float() + self.offset if self.offset else weight

    @property
    def eps(self) -> float:
        """Return what is added to the mean square. transformers has two names for it."""
        eps = getattr(self.module, "variance_epsilon", None)
        return float(self.module.eps if eps is None else eps)  # type: ignore[arg-type]

    def __call__(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return `x` [tokens, width] normalized, in `dtype`."""
        return run_function(RmsNorm, x.float(), self.weight, self.eps, dtype)


class BlockParts:
    """The computations of a block around its attention, with projections that can be replaced."""

    def __init__(
        self, block: nn.Module, family: ModelFamily, config: PreTrainedConfig, dtype: torch.dtype
    ) -> None:
        def find(name: str | None) -> Norm | None:
            return Norm(block.get_submodule(name), family.norm_offset) if name else None

        self.dtype = dtype
        self.activation = str(getattr(config, family.activation))
        self.attention_norm, self.mlp_norm = find(family.attention_norm), find(family.mlp_norm)
        self.attention_output_norm = find(family.attention_output_norm)
        self.mlp_output_norm = find(family.mlp_output_norm)
        self.query_key_norms = [find(name) for name in family.query_key_norms or ()]
        multiplier = family.residual_multiplier
        self.residual_multiplier = float(getattr(config, multiplier)) if multiplier else 1.0
        self.qkv: Projection
        self.out: Projection
        self.gate_up: Projection
        self.down: Projection

    def project(self, x: torch.Tensor, kind: AttentionKind) -> torch.Tensor:
        """Return queries, keys and values of the residual stream `x` [tokens, width]."""
        qkv = self.qkv(self._normalize(x, self.attention_norm))
        if not self.query_key_norms:
            return qkv
        query, key = self.query_key_norms
        assert query is not None and key is not None
        size = qkv.shape[1] // (kind.heads + 2 * kind.kv_heads)
        # A norm's width says what it is over: each head's vector, or all of them together.
        parts = tuple(
            (count * size, count * size // len(norm.weight))
            for count, norm in ((kind.heads, query), (kind.kv_heads, key))
        )
        return run_function(QueryKeyNorm, qkv, query.weight, key.weight, query.eps, parts)

    def add_attention(self, x: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
        """Return the residual stream with what attention has mixed."""
        return self._add(x, self.out(mixed), self.attention_output_norm)

    def add_mlp(self, x: torch.Tensor) -> torch.Tensor:
        """Return the residual stream with the MLP's output."""
        gate_up = self.gate_up(self._normalize(x, self.mlp_norm))
        return self._add(x, self.down(gate(gate_up, self.activation)), self.mlp_output_norm)

    def _normalize(self, x: torch.Tensor, norm: Norm | None) -> torch.Tensor:
        return x.to(self.dtype) if norm is None else norm(x, self.dtype)

    def _add(self, x: torch.Tensor, out: torch.Tensor, norm: Norm | None) -> torch.Tensor:
        if norm is not None:
            out = norm(out, torch.float32)
        if self.residual_multiplier != 1:
            return torch.add(x, out, alpha=self.residual_multiplier)
        return x + out


class PackedBlock(nn.Module):
    """One block of the model."""

    def __init__(
        self,
        block: nn.Module,
        family: ModelFamily,
        config: PreTrainedConfig,
        dtype: torch.dtype,
        *,
        sharded: bool = False,
    ) -> None:
        super().__init__()
        self.block = block
        # No module, so that norms are not registered a second time: FSDP must find each once.
        self.parts = BlockParts(block, family, config, dtype)
        self.projections = tuple(
            make_projection(layers, dtype, sharded=sharded) for layers in family.projections(block)
        )
        parts = self.parts
        parts.qkv, parts.out, parts.gate_up, parts.down = self.projections

    def forward(
        self, x: torch.Tensor, inputs: LayerInputs, *, gradient_checkpointing: bool = False
    ) -> torch.Tensor:
        """Return the block's output, float32 [tokens, width] as its input.

        With `gradient_checkpointing` only the input is kept, and the rest is computed again in the
        backward pass.
        """
        if gradient_checkpointing:
            output: torch.Tensor = checkpoint(self.compute, x, inputs, use_reentrant=False)
            return output
        return self.compute(x, inputs)

    def compute(self, x: torch.Tensor, inputs: LayerInputs) -> torch.Tensor:
        """Compute attention, then the MLP, each added to the residual stream."""
        qkv = self.parts.project(x, inputs.indices.kind)
        mixed = run_function(PackedAttention, qkv, inputs.cos, inputs.sin, inputs.indices)
        return self.parts.add_mlp(self.parts.add_attention(x, mixed))
