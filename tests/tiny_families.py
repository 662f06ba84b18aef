"""Every causal language model family of transformers, small enough to compute in milliseconds.

A configuration is made of the family's default one: each size that has a known name becomes small,
each list with an entry a layer keeps one entry of each kind, windows are shorter than the rows of
the tests, and nothing is dropped at random. EXCEPTIONS has what a family needs besides.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from local_backend.data.examples import Example
from local_backend.models.token_losses import TokenLosses
from local_backend.training.padding_free import forward_row_by_row

VOCABULARY = 72
FIRST_TOKEN = 8
"""Tokens below this are special in some families, and are in no row."""
WINDOW = 8
"""The window of a sliding or chunked attention, in tokens."""
TOLERANCES = (1e-5, 5e-4)
"""The relative differences of losses and of gradients up to which they are equal. Gradients of most
families differ by 1e-6, those of zamba by 3e-4; wrong ones differ by some percent.
"""

SIZES: dict[int, str] = {
    2: """num_hidden_layers n_layer n_layers num_layers decoder_layers num_decoder_layers
        encoder_layers num_encoder_layers num_key_value_heads num_kv_heads swa_num_key_value_heads
        num_experts_per_tok num_experts_per_token moe_topk moe_k top_k_experts
        moe_num_shared_experts""",
    1: """n_group topk_group num_expert_group first_k_dense_replace num_dense_layers
        n_shared_experts num_shared_experts mamba_n_groups n_groups num_nextn_predict_layers""",
    4: """num_attention_heads n_head n_heads num_heads decoder_attention_heads
        encoder_attention_heads num_decoder_attention_heads num_encoder_attention_heads
        swa_num_attention_heads num_experts num_local_experts n_routed_experts moe_num_experts
        attention_heads linear_num_heads linear_num_key_heads linear_num_value_heads""",
    8: """head_dim qk_rope_head_dim v_head_dim qk_nope_head_dim kv_lora_rank q_lora_rank
        swa_head_dim linear_head_dim linear_key_head_dim linear_value_head_dim index_head_dim
        mamba_d_state state_size mamba_d_head rotary_dim dim_head d_head""",
    16: "moe_intermediate_size qk_head_dim",
    32: "hidden_size n_embd d_model emb_dim dim_model",
    64: """intermediate_size decoder_ffn_dim encoder_ffn_dim ffn_dim n_inner d_inner dff dim_ff
        ffn_hidden_size shared_expert_intermediate_size shared_intermediate_size
        expert_ffn_hidden_size dense_intermediate_size intermediate_size_mlp""",
    VOCABULARY: "vocab_size decoder_vocab_size vocab_size_per_layer_input",
    128: "max_position_embeddings n_positions n_ctx max_seq_len context_length",
}
WINDOWS = """index_topk sliding_window attention_chunk_size window_size sliding_window_size
    attention_window_size"""
SPECIAL_TOKENS = {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3}
LAYER_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")

EXCEPTIONS: dict[str, dict[str, Any]] = {
    "bamba": {
        "mamba_n_heads": 8,
        "mamba_d_head": 8,
        "mamba_chunk_size": 16,
        "attn_layer_indices": [1],
    },
    "cohere_compass_text": {
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 10000.0}
            for kind in ("sliding_attention", "full_attention")
        }
    },
    "dbrx": {
        "ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2},
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
    },
    "dory": {
        "num_hidden_layers": 3,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "n_input_layers": 1,
        "n_recurrent_layers": 1,
        "n_output_layers": 1,
    },
    "dots3_note_text": {
        "per_layer_config": {},
        "shared_experts_intermediate_size": 16,
        "head_dim": 16,
    },
    "falcon_h1": {"mamba_d_ssm": 64, "mamba_n_heads": 8, "mamba_chunk_size": 16},
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_kv_shared_layers": 2,
        "intermediate_size": [64] * 4,
        "activation_sparsity_pattern": [0.95, 0.0, 0.0, 0.0],
        "hidden_size_per_layer_input": 8,
        "laurel_rank": 8,
    },
    "gemma4_text": {"hidden_size_per_layer_input": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_chunk_size": 16},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "llama4_text": {
        "num_hidden_layers": 2,
        "layer_types": ["chunked_attention", "full_attention"],
        "no_rope_layers": [1, 0],
        "moe_layers": [1],
    },
    "mamba2": {"num_heads": 8, "head_dim": 8, "chunk_size": 16},
    "minimax": {"num_hidden_layers": 2, "layer_types": ["full_attention", "linear_attention"]},
    "minimax_m3_vl_text": {
        "layer_types": ["full_attention", "minimax_m3_sparse"],
        "index_block_size": 4,
        "index_topk_blocks": 2,
    },
    "nemotron_h": {"chunk_size": 16},
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 8,
        "indexer_compress_ratio": 4,
    },
    "roc_bert": {
        "pronunciation_vocab_size": 16,
        "pronunciation_embed_dim": 8,
        "shape_vocab_size": 16,
        "shape_embed_dim": 8,
    },
    "zamba2": {"chunk_size": 16},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
        "attention_head_dim": 16,
        "attention_hidden_size": 64,
    },
    "zaya": {"num_experts_per_tok": 1, "layer_types": ["hybrid", "hybrid"]},
}
"""What a family's tiny configuration has besides, by model_type."""
WRAPPERS = """
    dots3_note emu3 fuyu gemma3 gemma3n gemma4 gemma4_unified git got_ocr2 llama4 mllama moshi
    moss_transcribe_diarize musicgen musicgen_melody phi4_multimodal qwen3_5 qwen3_5_moe qwen4_exp
    trocr whisper"""
NOT_BUILT = {
    **dict.fromkeys(WRAPPERS.split(), "multimodal: its text decoder may be a family of its own"),
    "blt": "four models in one, with a patcher of bytes",
    "gemma4_assistant": "a draft model: it needs the states of another one",
    "gemma4_unified_assistant": "a draft model: it needs the states of another one",
    "reformer": "it learns only from rows of a multiple of its chunks' length",
}
"""Why a family has no tiny model, by model_type."""


def model_types() -> list[str]:
    """Return the families that AutoModelForCausalLM builds."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys() - NOT_BUILT.keys())


def tiny_settings(defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the small settings for a family with these defaults."""
    small = {name: size for size, names in SIZES.items() for name in names.split()}
    small |= dict.fromkeys(WINDOWS.split(), WINDOW) | SPECIAL_TOKENS
    small |= {"is_decoder": True, "use_sliding_window": True, "use_cache": False}
    changed = {name: small[name] for name in defaults.keys() & small.keys()}
    changed |= {
        name: 0.0
        for name, value in defaults.items()
        if isinstance(value, float) and ("drop" in name or "noise" in name)
    }
    if "num_key_value_heads" in defaults and defaults["num_key_value_heads"] == defaults.get(
        "num_attention_heads"
    ):
        changed["num_key_value_heads"] = changed["num_attention_heads"]
    depth = next((defaults[name] for name in LAYER_COUNTS if name in defaults), None)
    lists = {
        name: kinds_of(value)
        for name, value in defaults.items()
        if isinstance(value, list) and len(value) == depth and isinstance(value[0], str)
    }
    if "sliding_window" in defaults and "layer_types" in lists:
        lists["layer_types"] = kinds_of([*lists["layer_types"], "sliding_attention"])
    layers = max([2, *(len(kinds) for kinds in lists.values())])
    changed |= {name: layers for name in LAYER_COUNTS if name in defaults}
    return changed | {
        name: [kinds[at % len(kinds)] for at in range(layers)] for name, kinds in lists.items()
    }


def kinds_of(values: Sequence[Any]) -> list[Any]:
    """Return the distinct values in order."""
    return [value for at, value in enumerate(values) if value not in values[:at]]


def build_family(model_type: str) -> Any:
    """Return a random tiny model of a family in float32, with weights that make large logits.

    Raise whatever transformers raises for a family that can't be built so.
    """
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    logging.getLogger("transformers").setLevel(logging.ERROR)
    config_class = CONFIG_MAPPING[model_type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = tiny_settings(config_class().to_dict()) | EXCEPTIONS.get(model_type, {})
        torch.manual_seed(0)
        config = config_class(**settings)
        model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "norm" not in name and "positional" not in name:
                weight.normal_(std=0.3)
    model.config.use_cache = False  # as a job loads it
    return model.train()


def random_row(length: int, seed: int) -> Example:
    """Return a sequence of which the last two thirds have loss."""
    ids = np.random.default_rng([length, seed]).integers(FIRST_TOKEN, VOCABULARY, length)
    return Example(ids.astype(np.int32), np.arange(length) >= max(1, length // 3))


ROWS = [random_row(length, at) for at, length in enumerate((5, 19, 11, 3, 21, 9))]
"""Rows that fill lines of 21 tokens partly, some of them longer than two windows."""
PAD = SPECIAL_TOKENS["pad_token_id"]


def losses_and_gradients(losses: TokenLosses, model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss of each token, and the gradient of a sum that no two count equally in."""
    each = torch.cat(losses.by_row())
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    total = (each * torch.linspace(0.5, 1.5, len(each))).sum()
    gradients = torch.autograd.grad(total, weights, allow_unused=True)
    parts = [part.flatten() for part in gradients if part is not None]
    return each.detach(), torch.cat(parts)


def losses_alone(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the same of rows that go through the model one at a time."""
    return losses_and_gradients(forward_row_by_row(model, ROWS, torch.device("cpu")), model)


def is_equal(
    computed: tuple[torch.Tensor, torch.Tensor], expected: tuple[torch.Tensor, torch.Tensor]
) -> bool:
    """Return whether losses and gradients are equal up to rounding."""
    return all(
        a.shape == b.shape and float((a - b).norm() / b.norm()) < tolerance
        for a, b, tolerance in zip(computed, expected, TOLERANCES, strict=True)
    )
