"""Model families that the packed path computes, described as data.

To add a family whose blocks compute what Llama's do, add a line to FAMILIES; where its modules have
other names, name them. A family that computes something else (for example, normalized queries)
needs a change in llama.py too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from local_backend.models.lora import LoraLinear

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class ModelFamily:
    """Where the models of a family keep their modules; names are dotted paths.

    The first three are paths in the decoder, which is at `decoder` in the model; the others are
    paths in a block.
    """

    model_type: str
    """transformers' name for the family, from config.json."""
    decoder: str = "model"
    embedding: str = "embed_tokens"
    rotary_embedding: str = "rotary_emb"
    norm: str = "norm"
    blocks: str = "layers"
    query: str = "self_attn.q_proj"
    key: str = "self_attn.k_proj"
    value: str = "self_attn.v_proj"
    attention_output: str = "self_attn.o_proj"
    gate: str = "mlp.gate_proj"
    up: str = "mlp.up_proj"
    down: str = "mlp.down_proj"
    attention_norm: str = "input_layernorm"
    mlp_norm: str = "post_attention_layernorm"

    def find_blocks(self, model: nn.Module) -> list[nn.Module]:
        """Return the blocks of `model`, first to last."""
        return list(model.get_submodule(f"{self.decoder}.{self.blocks}").children())

    def linear_layers(self, block: nn.Module) -> Iterator[nn.Module]:
        """Yield the seven linear layers of a block, some of them with adapters."""
        names = (self.query, self.key, self.value, self.attention_output)
        for name in (*names, self.gate, self.up, self.down):
            yield block.get_submodule(name)


FAMILIES = {
    family.model_type: family
    for family in (ModelFamily("llama"), ModelFamily("mistral"), ModelFamily("qwen2"))
}
"""Families by `model_type`. cloudft's `check` has the same names; a test compares the two."""


def find_family(model: PreTrainedModel) -> ModelFamily | None:
    """Return the family of a transformers model, or None if the packed path does not know it."""
    return FAMILIES.get(str(_setting(model, "model_type")))


def unsupported_reason(model: PreTrainedModel) -> str | None:
    """Return why the packed path can't compute this model; None if it can."""
    family = find_family(model)
    if family is None:
        return f"it knows the families {', '.join(FAMILIES)}, not {_setting(model, 'model_type')}"
    if _setting(model, "hidden_act") != "silu":
        return f"it computes the activation silu, not {_setting(model, 'hidden_act')}"
    if _setting(model, "use_sliding_window", True) and _setting(model, "sliding_window"):
        return "it has no sliding-window attention, which this model uses"
    if _setting(model, "attention_dropout"):
        return "it has no attention dropout, which this model uses"
    if isinstance(model.get_output_embeddings(), LoraLinear):
        return "it has no adapter on the output layer"
    rope = _setting(model, "rope_parameters")
    if isinstance(rope, dict) and rope.get("partial_rotary_factor", 1.0) != 1.0:
        return "it rotates whole vectors, and this model rotates a part of them"
    for block in family.find_blocks(model):
        for layer in family.linear_layers(block):
            # By exact type: 4-bit and other quantized layers are subclasses of nn.Linear.
            base = base_linear(layer)
            if type(layer) not in (nn.Linear, LoraLinear) or type(base) is not nn.Linear:
                return f"it computes plain linear layers, not {type(base).__name__}"
    return None


def _setting(model: PreTrainedModel, name: str, default: object = None) -> object:
    return getattr(model.config, name, default)


def base_linear(layer: nn.Module) -> nn.Module:
    """Return the linear layer itself, without its adapter."""
    return layer.base_layer if isinstance(layer, LoraLinear) else layer
