"""Models of Llama's shape on packed records: the forward pass that training takes.

It computes what the model's own forward computes for each record alone (the plain way; tests hold
one against the other), over the same parameters, with what training does not need left out: no
padding, no gradient of what is frozen, logits only where a token is learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from local_backend.models.lora import LoraLinear
from local_backend.packed.attention import GatherIndices, PackedAttention, build_gather_indices
from local_backend.packed.layout import PackedLayout
from local_backend.packed.ops import (
    ChunkedCrossEntropy,
    FusedLinear,
    FusedLoraLinear,
    RmsNorm,
    SwiGlu,
)

LLAMA_MODEL_TYPES = {"llama", "mistral", "qwen2"}
"""`model_type` of the models whose blocks are Llama's."""


def is_supported(model: Any) -> bool:
    """True of a model that this file computes rightly."""
    config = model.config
    return (
        config.model_type in LLAMA_MODEL_TYPES
        and getattr(config, "hidden_act", "") == "silu"
        and not getattr(config, "use_sliding_window", config.model_type == "mistral")
        and not getattr(config, "attention_dropout", 0.0)
        and all(
            type(layer) in (nn.Linear, LoraLinear) and type(base_linear(layer)) is nn.Linear
            for block in model.model.layers
            for layer in block_linears(block)
        )
    )


def block_linears(block: Any) -> tuple[nn.Module, ...]:
    """The seven linear layers of a block."""
    a, m = block.self_attn, block.mlp
    return a.q_proj, a.k_proj, a.v_proj, a.o_proj, m.gate_proj, m.up_proj, m.down_proj


def base_linear(layer: Any) -> Any:
    """The linear layer itself, without its adapter."""
    return layer.base_layer if isinstance(layer, LoraLinear) else layer


class FusedProjection:
    """Linear layers that read one input, their weights in one matrix when these are frozen.

    The layers' own weights become parts of that matrix, so that nothing is held twice. Those of a
    sharded model are whole only while their block is gone through: they are joined each time anew.
    """

    def __init__(self, layers: Sequence[Any], dtype: torch.dtype, *, sharded: bool = False) -> None:
        self.dtype = dtype
        self.base_layers = [base_linear(layer) for layer in layers]
        self.lora_layers = [layer for layer in layers if isinstance(layer, LoraLinear)]
        self.trains_base_weights = any(base.weight.requires_grad for base in self.base_layers)
        self.in_features = self.base_layers[0].in_features
        self.fused_weight: torch.Tensor | None = None
        if self.trains_base_weights or sharded:
            return
        self.fused_weight = self._concat_with_lora_columns()
        sizes = [base.out_features for base in self.base_layers]
        for base, part in zip(self.base_layers, self.fused_weight.split(sizes), strict=True):
            if base.weight.dtype == dtype:
                base.weight.data = part[:, : self.in_features]

    def _concat_with_lora_columns(self) -> torch.Tensor:
        """The layers' weights, and beside them room for the B."""
        ranks = sum(len(layer.lora_A) for layer in self.lora_layers)
        weight = self._concat_weights()
        return torch.cat([weight, weight.new_zeros(len(weight), ranks)], 1)

    def _concat_weights(self) -> torch.Tensor:
        return torch.cat([base.weight.detach().to(self.dtype) for base in self.base_layers])

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[tokens, in] -> [tokens, all outs]."""
        bias = self._concat_bias()
        if self.trains_base_weights:
            parts = [base.weight for base in self.base_layers]
            return FusedLinear.apply(x, self._concat_weights(), bias, *parts)
        weight = (
            self._concat_with_lora_columns() if self.fused_weight is None else self.fused_weight
        )
        if not self.lora_layers:
            return FusedLinear.apply(x, weight, bias)
        self._copy_lora_b(weight)
        parts = [part for layer in self.lora_layers for part in (layer.lora_A, layer.lora_B)]
        scale = self.lora_layers[0].scaling  # one Lora made them all
        return FusedLoraLinear.apply(x, self._apply_dropout(x), weight, bias, scale, *parts)

    def _copy_lora_b(self, weight: torch.Tensor) -> None:
        """The B as they are now, each beside its layer's weights.

        Each time anew: PyTorch's fused optimizers change weights without a mark on them.
        """
        at, first = 0, self.in_features
        for layer in self.lora_layers:
            out, rank = layer.lora_B.shape
            weight.data[at : at + out, first : first + rank] = layer.lora_B.data
            at, first = at + out, first + rank

    def _concat_bias(self) -> torch.Tensor | None:
        if all(base.bias is None for base in self.base_layers):
            return None
        return torch.cat([base.bias.to(self.dtype) for base in self.base_layers])

    def _apply_dropout(self, x: torch.Tensor) -> torch.Tensor:
        layer = self.lora_layers[0]
        return F.dropout(x, layer.dropout, True) if layer.dropout and layer.training else x


class SeparateProjections:
    """Linear layers that read one input, of which not all have an adapter."""

    def __init__(self, layers: Sequence[Any], dtype: torch.dtype, *, sharded: bool = False) -> None:
        self.projections = [FusedProjection([layer], dtype, sharded=sharded) for layer in layers]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[tokens, in] -> [tokens, all outs]."""
        return torch.cat([projection(x) for projection in self.projections], -1)


def make_projection(
    layers: Sequence[Any], dtype: torch.dtype, *, sharded: bool = False
) -> FusedProjection | SeparateProjections:
    """The layers as one where they are alike."""
    alike = len({isinstance(layer, LoraLinear) for layer in layers}) == 1
    return (FusedProjection if alike else SeparateProjections)(layers, dtype, sharded=sharded)


class PackedBlock(nn.Module):
    """One layer of the model."""

    def __init__(self, layer: Any, dtype: torch.dtype, *, sharded: bool = False) -> None:
        super().__init__()
        self.layer = layer
        q, k, v, o, gate, up, down = block_linears(layer)
        self.norms = layer.input_layernorm, layer.post_attention_layernorm
        self.qkv, self.out, self.gate_up, self.down = (
            make_projection(one, dtype, sharded=sharded)
            for one in ([q, k, v], [o], [gate, up], [down])
        )
        size = layer.self_attn.head_dim
        self.heads, self.kv_heads = (base_linear(x).out_features // size for x in (q, k))
        self.dtype = dtype

    def forward(
        self,
        x: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        where: GatherIndices,
        *,
        gradient_checkpointing: bool = False,
    ) -> torch.Tensor:
        """float32 [tokens, width], as it was given. When `thrifty`, only that is kept of it."""
        if gradient_checkpointing:
            return checkpoint(self.compute, x, cos, sin, where, use_reentrant=False)
        return self.compute(x, cos, sin, where)

    def compute(
        self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, where: GatherIndices
    ) -> torch.Tensor:
        """Attention, then the rest."""
        first, second = self.norms
        qkv = self.qkv(rms_norm(x, first, self.dtype))
        mixed = PackedAttention.apply(qkv, cos, sin, where)
        x = x + self.out(mixed)
        return x + self.down(SwiGlu.apply(self.gate_up(rms_norm(x, second, self.dtype))))


def rms_norm(x: torch.Tensor, norm: Any, dtype: torch.dtype) -> torch.Tensor:
    """X normalized by one of the model's norms."""
    return RmsNorm.apply(x, norm.weight, norm.variance_epsilon, dtype)


class PackedLlama(nn.Module):
    """A model of Llama's shape that takes packed records. `dtype` is what matrices multiply in.

    Its parts are the model's own, each in one place: what FSDP gathers when they are called.
    """

    def __init__(self, model: Any, dtype: torch.dtype, *, sharded: bool = False) -> None:
        super().__init__()
        inner, self.dtype = model.model, dtype
        self.embedding, self.rotary_embedding, self.norm = (
            inner.embed_tokens,
            inner.rotary_emb,
            inner.norm,
        )
        self.head = model.get_output_embeddings()
        self.blocks = nn.ModuleList(
            PackedBlock(one, dtype, sharded=sharded) for one in inner.layers
        )
        self.gradient_checkpointing = sharded
        """When set, activations are computed again on the way back instead of being kept; with
        them go the joined weights of a sharded model."""

    def summed_loss(self, layout: PackedLayout) -> torch.Tensor:
        """The negative log-likelihood of the layout's learned tokens in nats, summed; a scalar."""
        x = F.embedding(layout.ids, self.embedding.weight).float()
        cos, sin = self.rotary_tables(layout)
        shape = self.blocks[0].heads, self.blocks[0].kv_heads
        where = build_gather_indices(layout, *shape, self.dtype)
        learning = torch.is_grad_enabled()
        for block in self.blocks:
            x = block(
                x, cos, sin, where, gradient_checkpointing=self.gradient_checkpointing and learning
            )
        hidden = rms_norm(x.index_select(0, layout.logit_positions), self.norm, self.dtype)
        return ChunkedCrossEntropy.apply(hidden, self.head.weight, layout.targets, learning)

    forward = summed_loss

    def rotary_tables(self, layout: PackedLayout) -> tuple[torch.Tensor, torch.Tensor]:
        """Cos and sin of the positions' angles, [tokens, 1, size / 2], float32."""
        shape = torch.empty((1, 1), device=layout.ids.device)
        cos, sin = self.rotary_embedding(shape, position_ids=layout.positions[None])
        half = cos.shape[-1] // 2
        return cos[0, :, None, :half].contiguous(), sin[0, :, None, :half].contiguous()
