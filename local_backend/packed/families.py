"""Model families that the packed path computes, described as data.

A line of FAMILIES says where the models of a family keep their modules and what their blocks
compute besides what Llama's do. What no field describes, the packed path can't compute: such a
family is not in the table, and its models take their own forward pass. Tests compare each family
with that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from torch import nn

from local_backend.models.lora import LoraLinear

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class ModelFamily:
    """Where the models of a family keep their modules, and what their blocks compute.

    Names of modules are dotted paths: the first five in the model or its decoder, the others in a
    block; None where a block has no such module. Names of settings are those of config.json.
    """

    model_type: str
    """transformers' name for the family, from config.json."""
    decoder: str = "model"
    embedding: str = "embed_tokens"
    rotary_embedding: str = "rotary_emb"
    norm: str = "norm"
    blocks: str = "layers"
    qkv: tuple[str, ...] = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    """Queries, keys and values, in this order; one layer where a family has them fused."""
    attention: str = "self_attn"
    attention_output: str = "self_attn.o_proj"
    gate_up: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj")
    down: str = "mlp.down_proj"
    own_mlp: str | None = None
    """The MLP as the model has it, for what the fields do not describe (routed experts, an
    activation without a gate): its own forward pass runs on the packed tokens."""
    attention_norm: str | None = "input_layernorm"
    mlp_norm: str | None = "post_attention_layernorm"
    attention_output_norm: str | None = None
    """Normalizes what attention adds to the residual stream."""
    mlp_output_norm: str | None = None
    query_key_norms: tuple[str, str] | None = None
    """Normalize queries and keys before positions are applied."""
    norm_offset: float = 0.0
    """Added to the weights of all norms (Gemma keeps them around zero)."""
    centers: bool = False
    """Norms subtract the mean first (LayerNorm); their weights and biases may be missing."""
    parallel_mlp: bool = False
    """The MLP reads what attention reads, and both are added to the residual stream at once."""
    activation: str = "hidden_act"
    """Setting with the name of the MLP's activation."""
    interleaved_rotary: bool = False
    """Positions rotate neighboring dimensions (GPT-J's way), not those half a rotation apart."""
    rotary_by_layer_type: bool = False
    """The rotary module takes the layer's type, and has angles of its own for each."""
    rotary_layout: str = "halves"
    """Where the rotary module has each angle: in both `halves`, in neighboring `pairs`, or `once`.
    """
    rotary_flag: str | None = None
    """Attribute of a block's attention that says whether it has positions at all."""
    rotary_in_windows_only: bool = False
    """Layers without a window have no positions, if the model has windows."""
    sinks: str | None = None
    """One logit for each head that takes part in the softmax of its scores and has no value."""
    scales_embedding_by_width: bool = False
    """Embeddings are multiplied by the root of their width. A model whose embedding module has an
    `embed_scale` needs no such line."""
    embedding_multiplier: str | None = None
    residual_multiplier: str | None = None
    """Setting that multiplies what attention and MLP add to the residual stream."""
    attention_softcap: str | None = None
    logit_softcap: str | None = None
    logit_divisor: str | None = None
    logit_multiplier: str | None = None
    must_be_off: tuple[str, ...] = field(default=("attention_dropout",))
    """Settings that change the computation in ways that nothing here describes."""

    def find_blocks(self, model: nn.Module) -> list[nn.Module]:
        """Return the blocks of `model`, first to last."""
        return list(model.get_submodule(f"{self.decoder}.{self.blocks}").children())

    def projections(self, block: nn.Module) -> list[list[nn.Module]]:
        """Return the linear layers of a block, those of one input together.

        These are queries, keys and values; attention's output; gate and up; down. The last two are
        left out where the MLP runs as the model has it.
        """
        names = [self.qkv, (self.attention_output,)]
        names += [] if self.own_mlp else [self.gate_up, (self.down,)]
        return [[block.get_submodule(name) for name in part] for part in names]

    def linear_layers(self, block: nn.Module) -> Iterator[nn.Module]:
        """Yield the linear layers of a block, some of them with adapters."""
        for part in self.projections(block):
            yield from part


_LLAMA = ModelFamily("llama")
_FUSED_GATE_UP = ("mlp.gate_up_proj",)
_QUERY_KEY_NORMS = ("self_attn.q_norm", "self_attn.k_norm")
_GEMMA = replace(_LLAMA, norm_offset=1.0, activation="hidden_activation")
_GEMMA2 = replace(
    _GEMMA,
    mlp_norm="pre_feedforward_layernorm",
    attention_output_norm="post_attention_layernorm",
    mlp_output_norm="post_feedforward_layernorm",
    attention_softcap="attn_logit_softcapping",
    logit_softcap="final_logit_softcapping",
    must_be_off=("attention_dropout", "use_bidirectional_attention"),
)
_GEMMA3 = replace(
    _GEMMA2,
    query_key_norms=_QUERY_KEY_NORMS,
    rotary_by_layer_type=True,
    # transformers reads attn_logit_softcapping for Gemma 3, and does not apply it (5.23).
    attention_softcap=None,
)
_OLMO2 = replace(
    _LLAMA,
    attention_norm=None,
    mlp_norm=None,
    attention_output_norm="post_attention_layernorm",
    mlp_output_norm="post_feedforward_layernorm",
    query_key_norms=_QUERY_KEY_NORMS,
)
_MOE = replace(_LLAMA, own_mlp="mlp")
_LAYER_NORM = replace(_LLAMA, centers=True)
_COHERE = replace(
    _LAYER_NORM,
    mlp_norm=None,
    parallel_mlp=True,
    interleaved_rotary=True,
    rotary_layout="pairs",
    logit_multiplier="logit_scale",
    must_be_off=("attention_dropout", "use_qk_norm"),
)
_GRANITE = replace(
    _LLAMA,
    embedding_multiplier="embedding_multiplier",
    residual_multiplier="residual_multiplier",
    logit_divisor="logits_scaling",
)
_BY_MODEL_TYPE = {
    "arcee": replace(_LLAMA, own_mlp="mlp"),
    "cohere": _COHERE,
    "cohere2": replace(_COHERE, rotary_in_windows_only=True),
    "exaone4": replace(
        _OLMO2,
        rotary_in_windows_only=True,
    ),
    "gpt_oss": replace(_MOE, rotary_layout="once", sinks="self_attn.sinks"),
    "granitemoe": replace(_GRANITE, own_mlp="block_sparse_moe"),
    "llama": _LLAMA,
    "mixtral": replace(_MOE, must_be_off=("attention_dropout", "router_jitter_noise")),
    "nemotron": replace(_LAYER_NORM, norm_offset=1.0, own_mlp="mlp"),
    "olmo": replace(_LAYER_NORM, must_be_off=("attention_dropout", "clip_qkv")),
    "olmoe": replace(
        _MOE,
        query_key_norms=_QUERY_KEY_NORMS,
        must_be_off=("attention_dropout", "clip_qkv"),
    ),
    "qwen2_moe": _MOE,
    "qwen3_moe": replace(_MOE, query_key_norms=_QUERY_KEY_NORMS),
    "stablelm": replace(
        _LAYER_NORM,
        must_be_off=(
            "attention_dropout",
            "hidden_dropout",
            "qk_layernorm",
            "use_parallel_residual",
        ),
    ),
    "starcoder2": replace(
        _LAYER_NORM,
        own_mlp="mlp",
        must_be_off=("attention_dropout", "residual_dropout", "embedding_dropout"),
    ),
    "mistral": _LLAMA,
    "ministral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": replace(_LLAMA, query_key_norms=_QUERY_KEY_NORMS),
    "gemma": replace(_GEMMA, activation="hidden_act", scales_embedding_by_width=True),
    "gemma2": replace(_GEMMA2, scales_embedding_by_width=True),
    "gemma3_text": _GEMMA3,
    "phi3": replace(
        _LLAMA,
        qkv=("self_attn.qkv_proj",),
        gate_up=_FUSED_GATE_UP,
        must_be_off=("attention_dropout", "resid_pdrop", "embd_pdrop"),
    ),
    "granite": _GRANITE,
    "olmo2": _OLMO2,
    "olmo3": replace(_OLMO2, rotary_by_layer_type=True),
    "smollm3": replace(_LLAMA, rotary_flag="use_rope"),
    "seed_oss": replace(_LLAMA, must_be_off=("attention_dropout", "residual_dropout")),
    "glm4": replace(
        _LLAMA,
        gate_up=_FUSED_GATE_UP,
        attention_output_norm="post_self_attn_layernorm",
        mlp_output_norm="post_mlp_layernorm",
        interleaved_rotary=True,
    ),
    "ernie4_5": replace(_LLAMA, interleaved_rotary=True),
    "helium": replace(_LLAMA, interleaved_rotary=True),
}
FAMILIES = {
    name: replace(family, model_type=name) for name, family in sorted(_BY_MODEL_TYPE.items())
}
"""Families by `model_type`. cloudft's `check` has the same names; a test compares the two."""


def find_family(model: PreTrainedModel) -> ModelFamily | None:
    """Return the family of a transformers model, or None if the packed path does not know it."""
    return FAMILIES.get(str(getattr(model.config, "model_type", None)))


def base_linear(layer: nn.Module) -> nn.Module:
    """Return the linear layer itself, without its adapter."""
    return layer.base_layer if isinstance(layer, LoraLinear) else layer
