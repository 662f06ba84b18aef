"""One block of a model on packed records, for training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from local_backend.packed.attention import AttentionKind, GatherIndices, PackedAttention
from local_backend.packed.autograd import run_function
from local_backend.packed.families import ModelFamily
from local_backend.packed.gated import gate
from local_backend.packed.kernels import NormSettings
from local_backend.packed.norms import QueryKeyNorm, RmsNorm, add_rms_norm
from local_backend.packed.projections import adapter_columns, make_projection

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


LAYER_NORM_EPS = 1e-5
"""PyTorch's default, for norms that do not name theirs (OLMo)."""


@dataclass(frozen=True)
class Norm:
    """A norm of the model: by the root mean square, or (`centers`) by mean and variance.

    `offset` is added to its weights.
    """

    module: nn.Module
    offset: float
    centers: bool
    frozen: torch.Tensor | None = None

    def freeze(self) -> Norm:
        """Return the norm with its weights as they are now, float32."""
        if getattr(self.module, "weight", None) is None:  # one without weights
            return self
        return replace(self, frozen=self.weight.detach().float())

    @property
    def weight(self) -> torch.Tensor:
        """Return the weights that multiply what is normalized, [width]."""
        if self.frozen is not None:
            return self.frozen
        weight = self.module.weight
        assert isinstance(weight, torch.Tensor)
        return weight.float() + self.offset if self.offset else weight

    @property
    def eps(self) -> float:
        """Return what is added to the mean square. transformers has two names for it."""
        eps = getattr(self.module, "variance_epsilon", getattr(self.module, "eps", None))
        return LAYER_NORM_EPS if eps is None else float(eps)

    def __call__(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return `x` [tokens, width] normalized, in `dtype`."""
        if not self.centers:
            return run_function(RmsNorm, x.float(), self.weight, self.eps, dtype)
        weight = None if getattr(self.module, "weight", None) is None else self.weight.float()
        bias = getattr(self.module, "bias", None)
        bias = bias.float() if isinstance(bias, torch.Tensor) else None
        return F.layer_norm(x.float(), x.shape[-1:], weight, bias, self.eps).to(dtype)


class BlockParts:
    """The computations of a block around its attention, with projections that can be replaced."""

    def __init__(
        self, block: nn.Module, family: ModelFamily, config: PreTrainedConfig, dtype: torch.dtype
    ) -> None:
        def find(name: str | None) -> Norm | None:
            if name is None:
                return None
            return Norm(block.get_submodule(name), family.norm_offset, family.centers)

        self.dtype = dtype
        self.activation = str(getattr(config, family.activation))
        self.attention_norm, self.mlp_norm = find(family.attention_norm), find(family.mlp_norm)
        self.attention_output_norm = find(family.attention_output_norm)
        self.mlp_output_norm = find(family.mlp_output_norm)
        self.query_key_norms = [find(name) for name in family.query_key_norms or ()]
        self.own_mlp = block.get_submodule(family.own_mlp) if family.own_mlp else None
        self.parallel_mlp = family.parallel_mlp
        multiplier = family.residual_multiplier
        self.residual_multiplier = float(getattr(config, multiplier)) if multiplier else 1.0
        self.qkv: Projection
        self.out: Projection
        self.gate_up: Projection
        self.down: Projection

    def freeze_norms(self) -> None:
        """Compute with the norms' weights as they are now, in float32."""
        for name in ("attention_norm", "mlp_norm", "attention_output_norm", "mlp_output_norm"):
            norm: Norm | None = getattr(self, name)
            setattr(self, name, norm and norm.freeze())
        self.query_key_norms = [norm and norm.freeze() for norm in self.query_key_norms]

    def set_projections(self, projections: Sequence[Projection]) -> None:
        """Set the projections of ModelFamily.projections, in its order."""
        self.qkv, self.out, *rest = projections
        if rest:
            self.gate_up, self.down = rest

    def project(self, x: torch.Tensor, kind: AttentionKind) -> torch.Tensor:
        """Return queries, keys and values of the residual stream `x` [tokens, width]."""
        return self.project_normalized(self._normalize(x, self.attention_norm), kind)

    def project_normalized(self, x: torch.Tensor, kind: AttentionKind) -> torch.Tensor:
        """Return queries, keys and values of the normalized residual stream."""
        qkv = self.qkv(x)
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

    def start(
        self, x: torch.Tensor, delta: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the residual stream with what the block before adds, and that normalized."""
        return self._add_and_normalize(x, delta, self.attention_norm, adapter_columns(self.qkv))

    def finish(self, x: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
        """Return the block's output from its input and what attention has mixed."""
        return self.add(*self.finish_but_add(x, mixed))

    def finish_but_add(
        self, x: torch.Tensor, mixed: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the residual stream and what is still to be added to it: the block's output.

        The next block adds it in the pass that normalizes the sum. Where the MLP's output is
        normalized, it is added here and the second is None.
        """
        out, output_norm = self.out(mixed), self.attention_output_norm
        if self.parallel_mlp:
            normalized = self._normalize(x, self.attention_norm)
            x = self._add(x, out, output_norm)
        elif output_norm is None:
            x, normalized = self._add_and_normalize(x, out, self.mlp_norm, self._mlp_columns())
        else:
            x = self._add(x, out, output_norm)
            x, normalized = self._add_and_normalize(x, None, self.mlp_norm, self._mlp_columns())
        delta = self._mlp(normalized)
        if self.mlp_output_norm is not None:
            return self._add(x, delta, self.mlp_output_norm), None
        return x, delta

    def add(self, x: torch.Tensor, delta: torch.Tensor | None) -> torch.Tensor:
        """Return the residual stream with what `finish_but_add` has left to add."""
        return x if delta is None else self._add(x, delta, None)

    def _add_and_normalize(
        self, x: torch.Tensor, delta: torch.Tensor | None, norm: Norm | None, columns: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return x + delta, and that normalized, with memory for `columns` beside it."""
        if norm is None or norm.centers:
            x = self.add(x, delta)
            return x, self._normalize(x, norm)
        settings = NormSettings(norm.eps, self.dtype, columns)
        return add_rms_norm(x, delta, self.residual_multiplier, norm.weight, settings)

    def _mlp_columns(self) -> int:
        return 0 if self.own_mlp is not None else adapter_columns(self.gate_up)

    def _mlp(self, x: torch.Tensor) -> torch.Tensor:
        if self.own_mlp is None:
            activated = gate(self.gate_up(x), self.activation, adapter_columns(self.down))
            return self.down(activated)
        with torch.autocast(x.device.type, self.dtype, enabled=self.dtype != torch.float32):
            out = self.own_mlp(x[None])
        # Some return the router's scores as well.
        first: torch.Tensor = out[0] if isinstance(out, tuple) else out
        return first.reshape(x.shape)

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
        self.parts.set_projections(self.projections)
        sinks = block.get_parameter(family.sinks) if family.sinks else None
        self.sinks = None if sinks is None else sinks.detach()

    def forward(
        self,
        x: torch.Tensor,
        delta: torch.Tensor | None,
        inputs: LayerInputs,
        *,
        gradient_checkpointing: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the residual stream, float32 [tokens, width], and what is still to be added to it.

        `x` and `delta` are those of the block before: they are added where they are normalized, in
        one pass. With `gradient_checkpointing` only the input is kept, and the rest is computed
        again in the backward pass.
        """
        if gradient_checkpointing:
            x = self.parts.add(x, delta)  # one tensor to keep instead of two
            output: tuple[torch.Tensor, torch.Tensor | None] = checkpoint(
                self.compute, x, None, inputs, use_reentrant=False
            )
            return output
        return self.compute(x, delta, inputs)

    def compute(
        self, x: torch.Tensor, delta: torch.Tensor | None, inputs: LayerInputs
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Compute attention, then the MLP, each added to the residual stream."""
        x, normalized = self.parts.start(x, delta)
        qkv = self.parts.project_normalized(normalized, inputs.indices.kind)
        mixed = run_function(
            PackedAttention, qkv, inputs.cos, inputs.sin, inputs.indices, self.sinks
        )
        return self.parts.finish_but_add(x, mixed)
