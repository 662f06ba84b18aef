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

from local_backend.attention import Attend, Places, places
from local_backend.lora import LoraLinear
from local_backend.ops import Adapt, HeadLoss, Project, RmsNorm, SwiGlu
from local_backend.packing import Layout

SHAPES = {"llama", "mistral", "qwen2"}
"""`model_type` of the models whose blocks are Llama's."""


def fits(model: Any) -> bool:
    """True of a model that this file computes rightly."""
    config = model.config
    return (
        config.model_type in SHAPES
        and getattr(config, "hidden_act", "") == "silu"
        and not getattr(config, "use_sliding_window", config.model_type == "mistral")
        and not getattr(config, "attention_dropout", 0.0)
        and all(
            type(layer) in (nn.Linear, LoraLinear) and type(base_of(layer)) is nn.Linear
            for block in model.model.layers
            for layer in linears(block)
        )
    )


def linears(block: Any) -> tuple[nn.Module, ...]:
    """The seven linear layers of a block."""
    a, m = block.self_attn, block.mlp
    return a.q_proj, a.k_proj, a.v_proj, a.o_proj, m.gate_proj, m.up_proj, m.down_proj


def base_of(layer: Any) -> Any:
    """The linear layer itself, without its adapter."""
    return layer.base_layer if isinstance(layer, LoraLinear) else layer


class Projection:
    """Linear layers that read one input, their weights in one matrix when these are frozen.

    The layers' own weights become parts of that matrix, so that nothing is held twice.
    """

    def __init__(self, layers: Sequence[Any], dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.bases = [base_of(layer) for layer in layers]
        self.adapted = [layer for layer in layers if isinstance(layer, LoraLinear)]
        self.whole = any(base.weight.requires_grad for base in self.bases)
        if self.whole:
            return
        self.width = self.bases[0].in_features
        ranks = sum(len(layer.lora_A) for layer in self.adapted)
        weight = self._joined()
        self.weight = torch.cat([weight, weight.new_zeros(len(weight), ranks)], 1)
        sizes = [base.out_features for base in self.bases]
        for base, part in zip(self.bases, self.weight.split(sizes), strict=True):
            if base.weight.dtype == dtype:
                base.weight.data = part[:, : self.width]

    def _joined(self) -> torch.Tensor:
        return torch.cat([base.weight.detach().to(self.dtype) for base in self.bases])

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[tokens, in] -> [tokens, all outs]."""
        bias = self._bias()
        if self.whole:
            parts = [base.weight for base in self.bases]
            return Project.apply(x, self._joined(), bias, *parts)
        if not self.adapted:
            return Project.apply(x, self.weight, bias)
        self._lay_beside()
        parts = [part for layer in self.adapted for part in (layer.lora_A, layer.lora_B)]
        scale = self.adapted[0].scaling  # one Lora made them all
        return Adapt.apply(x, self._dropped(x), self.weight, bias, scale, *parts)

    def _lay_beside(self) -> None:
        """The B as they are now, each beside its layer's weights.

        Each time anew: PyTorch's fused optimizers change weights without a mark on them.
        """
        at, first = 0, self.width
        for layer in self.adapted:
            out, rank = layer.lora_B.shape
            self.weight.data[at : at + out, first : first + rank] = layer.lora_B.data
            at, first = at + out, first + rank

    def _bias(self) -> torch.Tensor | None:
        if all(base.bias is None for base in self.bases):
            return None
        return torch.cat([base.bias.to(self.dtype) for base in self.bases])

    def _dropped(self, x: torch.Tensor) -> torch.Tensor:
        layer = self.adapted[0]
        return F.dropout(x, layer.dropout, True) if layer.dropout and layer.training else x


class Apart:
    """Linear layers that read one input, of which not all have an adapter."""

    def __init__(self, layers: Sequence[Any], dtype: torch.dtype) -> None:
        self.projections = [Projection([layer], dtype) for layer in layers]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[tokens, in] -> [tokens, all outs]."""
        return torch.cat([projection(x) for projection in self.projections], -1)


def projection(layers: Sequence[Any], dtype: torch.dtype) -> Projection | Apart:
    """The layers as one where they are alike."""
    alike = len({isinstance(layer, LoraLinear) for layer in layers}) == 1
    return (Projection if alike else Apart)(layers, dtype)


class Block:
    """One layer of the model."""

    def __init__(self, block: Any, dtype: torch.dtype) -> None:
        q, k, v, o, gate, up, down = linears(block)
        self.norms = block.input_layernorm, block.post_attention_layernorm
        self.qkv, self.out = projection([q, k, v], dtype), projection([o], dtype)
        self.both, self.down = projection([gate, up], dtype), projection([down], dtype)
        size = block.self_attn.head_dim
        self.heads, self.kv_heads = (base_of(x).out_features // size for x in (q, k))
        self.dtype = dtype

    def __call__(
        self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, where: Places
    ) -> torch.Tensor:
        """float32 [tokens, width], as it was given."""
        first, second = self.norms
        qkv = self.qkv(normal(x, first, self.dtype))
        mixed = Attend.apply(qkv, cos, sin, where)
        x = x + self.out(mixed)
        return x + self.down(SwiGlu.apply(self.both(normal(x, second, self.dtype))))


def normal(x: torch.Tensor, norm: Any, dtype: torch.dtype) -> torch.Tensor:
    """X normalized by one of the model's norms."""
    return RmsNorm.apply(x, norm.weight, norm.variance_epsilon, dtype)


class Llama:
    """A model of Llama's shape that takes packed records. `dtype` is what matrices multiply in."""

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        self.model, self.dtype = model, dtype
        self.blocks = [Block(block, dtype) for block in model.model.layers]
        self.thrifty = False
        """When set, activations are computed again on the way back instead of being kept."""

    def summed_loss(self, layout: Layout) -> torch.Tensor:
        """The negative log-likelihood of the layout's learned tokens in nats, summed; a scalar."""
        inner = self.model.model
        x = F.embedding(layout.ids, inner.embed_tokens.weight).float()
        cos, sin = self.turns(layout)
        shape = self.blocks[0].heads, self.blocks[0].kv_heads
        where = places(layout, *shape, self.dtype)
        for block in self.blocks:
            if self.thrifty and torch.is_grad_enabled():
                x = checkpoint(block, x, cos, sin, where, use_reentrant=False)
            else:
                x = block(x, cos, sin, where)
        hidden = normal(x.index_select(0, layout.predicting), inner.norm, self.dtype)
        head = self.model.get_output_embeddings().weight
        return HeadLoss.apply(hidden, head, layout.targets, torch.is_grad_enabled())

    def turns(self, layout: Layout) -> tuple[torch.Tensor, torch.Tensor]:
        """Cos and sin of the positions' angles, [tokens, 1, size / 2], float32."""
        shape = torch.empty((1, 1), device=layout.ids.device)
        cos, sin = self.model.model.rotary_emb(shape, position_ids=layout.positions[None])
        half = cos.shape[-1] // 2
        return cos[0, :, None, :half].contiguous(), sin[0, :, None, :half].contiguous()
