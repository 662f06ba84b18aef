"""How llama.cpp computes the families that the fast path trains: a table.

A line says which of llama.cpp's architectures computes what transformers computes for the family,
and what of a model's configuration that architecture can't express. Each line was measured: tests
compare llama.cpp's probabilities with those of transformers for tiny models of every family
(tests/unit/local_backend/export/test_gguf_families.py). What no field describes is refused when a
model has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

MEASURED_WITH = "xllamacpp 2026.10.11549"
"""The build of llama.cpp whose answers the table describes."""
SILU = frozenset({"silu"})
RELU2 = frozenset({"relu2"})
TANH_GELU = frozenset({"gelu_pytorch_tanh"})
"""What llama.cpp computes as GELU, by a table of float16 values."""


@dataclass(frozen=True)
class GgufFamily:
    """How models of one `model_type` are written for llama.cpp."""

    architecture: str
    """llama.cpp's name, in `general.architecture`."""
    rotates_pairs: bool = False
    """llama.cpp rotates neighboring dimensions of queries and keys, transformers those half a
    rotation apart: the rows of both projections are written in another order."""
    norm_offset: float = 0.0
    """Added to the weights of all norms; transformers adds it while it computes."""
    takes_any_head_size: bool = False
    """The heads may be wider or narrower together than the model."""
    takes_grouped_heads: bool = True
    """Keys and values may have fewer heads than queries."""
    copies_head: bool = False
    """llama.cpp wants an output matrix even where it is the embedding."""
    windows: str | None = None
    """How llama.cpp knows which layers have a sliding window: a `list` of layers, a `period` (the
    last of so many has none), or None where it knows no windows at all."""
    needs_windows: bool = False
    """llama.cpp takes no model of the family without windows."""
    windows_need_layers: int | None = None
    """The only number of layers for which llama.cpp knows that there are windows."""
    positions_but_every: int | None = None
    """Each layer whose number is a multiple of this has no rotary positions."""
    folds_query_scale: bool = False
    """llama.cpp divides scores by the root of the head's size. What the model has instead
    (`query_pre_attn_scalar`) is multiplied into the queries' last weights."""
    rope_types: frozenset[str] = frozenset({"default", "linear", "yarn"})
    rotates_parts: bool = False
    """Heads may have dimensions without positions (`partial_rotary_factor`)."""
    activations: frozenset[str] = SILU
    biases: frozenset[str] = frozenset()
    """Tensors of a block (llama.cpp's names) that may have a bias."""
    must_be: Mapping[str, object] = field(default_factory=dict)
    """Settings of config.json that llama.cpp takes for granted, with their only right value."""
    scales: Mapping[str, str] = field(default_factory=dict)
    """Numbers that multiply or cap something: setting of config.json -> GGUF key."""
    must_have: frozenset[str] = frozenset()
    """Those of them for which llama.cpp has a number of its own when a file has none."""
    experts: str | None = None
    """How the folder holds routed experts: `each` in tensors of its own, or all in one tensor,
    in the layout of `gpt_oss` or `granitemoe`."""


_QKV_BIASES = frozenset({"attn_q", "attn_k", "attn_v"})
_ATTENTION_BIASES = _QKV_BIASES | {"attn_output"}
_MLP_BIASES = frozenset({"ffn_gate", "ffn_up", "ffn_down"})
_LLAMA_ROPE = frozenset({"default", "linear", "yarn", "llama3"})
_LLAMA = GgufFamily(
    "llama",
    takes_any_head_size=True,
    rotates_pairs=True,
    rope_types=_LLAMA_ROPE,
    biases=_ATTENTION_BIASES | _MLP_BIASES,
)
_QWEN2 = GgufFamily("qwen2", biases=_QKV_BIASES)
_GRANITE = replace(
    _LLAMA,
    architecture="granite",
    scales={
        "attention_multiplier": "attention.scale",
        "embedding_multiplier": "embedding_scale",
        "residual_multiplier": "residual_scale",
        "logits_scaling": "logit_scale",
    },
)
_GEMMA = GgufFamily("gemma", takes_any_head_size=True, norm_offset=1.0, activations=TANH_GELU)
_GEMMA2 = replace(
    _GEMMA,
    architecture="gemma2",
    windows="period",
    folds_query_scale=True,
    scales={
        "attn_logit_softcapping": "attn_logit_softcapping",
        "final_logit_softcapping": "final_logit_softcapping",
    },
    must_have=frozenset({"attn_logit_softcapping", "final_logit_softcapping"}),
)
_GEMMA3 = replace(
    _GEMMA2,
    architecture="gemma3",
    # transformers reads attn_logit_softcapping for Gemma 3, and does not apply it (5.23).
    scales={"final_logit_softcapping": "final_logit_softcapping"},
    must_have=frozenset(),
)
_COHERE = GgufFamily("command-r", scales={"logit_scale": "logit_scale"})
_MOE = {"decoder_sparse_step": 1, "mlp_only_layers": []}
_BY_MODEL_TYPE = {
    "arcee": replace(_LLAMA, architecture="arcee", activations=RELU2, biases=frozenset()),
    "cohere": replace(_COHERE, must_be={"use_qk_norm": False}),
    "cohere2": replace(_COHERE, architecture="cohere2", windows="period", needs_windows=True),
    "ernie4_5": GgufFamily("ernie4_5", takes_any_head_size=True),
    "exaone4": GgufFamily(
        "exaone4", windows="period", windows_need_layers=64, rope_types=_LLAMA_ROPE
    ),
    "gemma": _GEMMA,
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA3,
    "glm4": GgufFamily("glm4", takes_any_head_size=True, rotates_parts=True, biases=_QKV_BIASES),
    "gpt_oss": GgufFamily(
        "gpt-oss",
        takes_any_head_size=True,
        copies_head=True,
        windows="list",
        needs_windows=True,
        experts="gpt_oss",
        biases=_ATTENTION_BIASES
        | {"ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"},
    ),
    "granite": _GRANITE,
    "granitemoe": replace(_GRANITE, architecture="granitemoe", experts="granitemoe"),
    "helium": replace(_LLAMA, rotates_pairs=False, takes_any_head_size=False),
    "llama": _LLAMA,
    "ministral": _LLAMA,
    "mistral": _LLAMA,
    "mixtral": replace(_LLAMA, experts="each"),
    "nemotron": GgufFamily(
        "nemotron", rotates_parts=True, copies_head=True, norm_offset=1.0, activations=RELU2
    ),
    "olmo": GgufFamily("olmo", rotates_pairs=True, scales={"clip_qkv": "attention.clamp_kqv"}),
    "olmo2": GgufFamily("olmo2", copies_head=True),
    "olmo3": GgufFamily("olmo2", copies_head=True, windows="period"),
    "olmoe": GgufFamily(
        "olmoe",
        takes_grouped_heads=False,
        copies_head=True,
        experts="each",
        must_be={"clip_qkv": None, "norm_topk_prob": False},
    ),
    "phi3": GgufFamily("phi3", rotates_parts=True, rope_types=frozenset({"default", "longrope"})),
    "qwen2": _QWEN2,
    "qwen2_moe": GgufFamily(
        "qwen2moe",
        copies_head=True,
        experts="each",
        biases=_QKV_BIASES,
        must_be=_MOE | {"norm_topk_prob": False},
    ),
    "qwen3": GgufFamily("qwen3", takes_any_head_size=True),
    "qwen3_moe": GgufFamily(
        "qwen3moe",
        takes_any_head_size=True,
        experts="each",
        must_be=_MOE | {"norm_topk_prob": True},
    ),
    "seed_oss": GgufFamily("seed_oss", takes_any_head_size=True, biases=_QKV_BIASES),
    "smollm3": GgufFamily(
        "smollm3", takes_any_head_size=True, rotates_pairs=True, positions_but_every=4
    ),
    "stablelm": GgufFamily(
        "stablelm",
        rotates_parts=True,
        copies_head=True,
        biases=_QKV_BIASES,
        must_be={"qk_layernorm": False, "use_parallel_residual": False},
    ),
    "starcoder2": GgufFamily(
        "starcoder2", activations=TANH_GELU, biases=_ATTENTION_BIASES | _MLP_BIASES
    ),
}
GGUF_FAMILIES = dict(sorted(_BY_MODEL_TYPE.items()))
"""By `model_type` of config.json. A test compares the names with those of the fast path."""
