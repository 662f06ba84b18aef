"""Random models of every family of the packed path, with what is particular about each."""

from __future__ import annotations

from typing import Any

import torch

from local_backend.models import lora
from local_backend.settings import LoraSettings

VOCABULARY, LAYERS = 120, 4
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0}
SCALED = {"original_max_position_embeddings": 64}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0}
LONGROPE = {"short_factor": [1.0, 1.5, 2.0], "long_factor": [2.0, 3.0, 4.0]}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}
TYPES = ["sliding_attention", "full_attention"] * 2
VARIANTS: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama, llama3": {"rope_parameters": LLAMA3 | {"high_freq_factor": 4.0} | SCALED},
    "llama, yarn": {"rope_parameters": YARN | SCALED},
    "llama, linear": {"rope_parameters": YARN | {"rope_type": "linear"}},
    "llama, dynamic": {"rope_parameters": YARN | {"rope_type": "dynamic"}},
    "llama, tied, biases": {
        "tie_word_embeddings": True,
        "attention_bias": True,
        "mlp_bias": True,
    },
    "ministral": {"sliding_window": 7, "layer_types": TYPES, "head_dim": 8},
    "mistral": {"sliding_window": 7},
    "mistral, no window": {"sliding_window": None, "head_dim": 16},
    "qwen2": {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 2},
    "qwen3": {"head_dim": 16, "attention_bias": True},
    "qwen3, windows": {
        "head_dim": 8,
        "use_sliding_window": True,
        "sliding_window": 7,
        "max_window_layers": 1,
    },
    "gemma": {"head_dim": 16},
    "gemma2": {
        "head_dim": 16,
        "sliding_window": 7,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
        "query_pre_attn_scalar": 24,
    },
    "gemma3_text": {"head_dim": 16, "sliding_window": 7, "layer_types": TYPES},
    "gemma3_text, capped": {
        "head_dim": 8,
        "sliding_window": 7,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
    },
    "phi3": {"sliding_window": 7},
    "phi3, longrope": {
        "head_dim": 8,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.75,
            "original_max_position_embeddings": 40,
        }
        | LONGROPE,
        "original_max_position_embeddings": 40,
    },
    "granite": {
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.3,
        "attention_multiplier": 0.2,
        "logits_scaling": 2.5,
    },
    "olmo2": {},
    "olmo3": {
        "sliding_window": 7,
        "layer_types": TYPES,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "full_attention": YARN | SCALED,
        },
    },
    "smollm3": {"no_rope_layers": [1, 0, 1, 0], "use_sliding_window": False},
    "smollm3, windows": {
        "no_rope_layers": [1, 0, 1, 0],
        "use_sliding_window": True,
        "sliding_window": 7,
        "layer_types": TYPES,
    },
    "seed_oss": {"head_dim": 8, "residual_dropout": 0.0, "attention_dropout": 0.0},
    "glm4": {"head_dim": 8},
    "ernie4_5": {"head_dim": 8},
    "helium": {"head_dim": 8},
    "arcee": {},
    "cohere": {"logit_scale": 0.3},
    "cohere2": {"logit_scale": 0.3, "sliding_window": 7, "layer_types": TYPES},
    "exaone4": {"sliding_window": 7, "layer_types": TYPES},
    "exaone4, no window": {"sliding_window": None, "layer_types": TYPES[1:2] * LAYERS},
    "gpt_oss": EXPERTS
    | {
        "head_dim": 8,
        "num_local_experts": 4,
        "sliding_window": 7,
        "rope_parameters": YARN | SCALED | {"truncate": False, "beta_fast": 32.0, "beta_slow": 1.0},
    },
    "granitemoe": {
        "num_local_experts": 4,
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.3,
        "attention_multiplier": 0.2,
        "logits_scaling": 2.5,
    },
    "mixtral": EXPERTS | {"num_local_experts": 4},
    "nemotron": {"partial_rotary_factor": 0.5},
    "olmo": {},
    "olmoe": EXPERTS,
    "qwen2_moe": EXPERTS | {"moe_intermediate_size": 24, "shared_expert_intermediate_size": 16},
    "qwen3_moe": EXPERTS | {"moe_intermediate_size": 24, "mlp_only_layers": [1]},
    "stablelm": {"partial_rotary_factor": 0.5, "use_qkv_bias": True},
    "starcoder2": {"sliding_window": 7},
}
"""Configurations by the name of the family and what is particular about them."""


def build(name: str, trained: str) -> Any:
    """Return a random model of a family whose norms, biases and adapters all do something."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(name.split(",")[0], **SIZES | VARIANTS[name])
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 1:
                weight.add_(torch.randn_like(weight), alpha=0.2)
    if trained == "lora":
        lora.attach_adapters(model, LoraSettings(3, 6, 0.0, "all-linear"), 1)
        for _, layer in lora.lora_layers(model):
            torch.nn.init.normal_(layer.lora_B, std=0.1)
    model.config.use_cache = False
    return model.train()
