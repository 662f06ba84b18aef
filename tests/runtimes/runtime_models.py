"""Tiny random models of the families and settings that the runtimes are measured with.

All dimensions are such that every runtime takes them: onnxruntime's attention wants heads of a
multiple of 16, GGUF's 8-bit blocks rows of a multiple of 32. Prompts are longer than windows and
than what rope settings call the original length.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tiny
import tiny_families
import torch

from local_backend.models.portable_config import write_portable_config

WINDOW, CONTEXT, ORIGINAL = 16, 256, 32
"""Tokens of a sliding window, of the context, and of that before rope settings stretched it."""
ANSWER = 12
SIZES = {
    "hidden_size": 128,
    "head_dim": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 256,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 64,
    "max_position_embeddings": CONTEXT,
    "sliding_window": WINDOW,
}
ROPE = {
    "linear": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": ORIGINAL,
        "rope_theta": 10000.0,
    },
    "yarn": {
        "rope_type": "yarn",
        "factor": 8.0,
        "original_max_position_embeddings": ORIGINAL,
        "rope_theta": 10000.0,
    },
    "longrope": {
        "rope_type": "longrope",
        "short_factor": [1.0] * 16,
        "long_factor": [1.0 + at / 2 for at in range(16)],
        "original_max_position_embeddings": ORIGINAL,
        "rope_theta": 10000.0,
    },
    "partial": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
    "theta": {"rope_type": "default", "rope_theta": 500000.0},
}
BETAS = {"beta_fast": 32.0, "beta_slow": 1.0}
"""YaRN's own, which real gpt-oss models name, and which vLLM reads of them without a default."""
MIXED_LAYERS = {"layer_types": ["sliding_attention", "full_attention"]}
ALL_WINDOWS = {
    "use_sliding_window": True,
    "layer_types": ["sliding_attention"] * 2,
    "max_window_layers": 0,
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, rope theta": ("llama", {"rope_parameters": ROPE["theta"]}),
    "llama, llama3 rope": ("llama", {"rope_parameters": ROPE["llama3"]}),
    "llama, yarn rope": ("llama", {"rope_parameters": ROPE["yarn"]}),
    "llama, linear rope": ("llama", {"rope_parameters": ROPE["linear"]}),
    "llama, tied head": ("llama", {"tie_word_embeddings": True}),
    "llama, biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "mistral, window": ("mistral", {"sliding_window": WINDOW}),
    "qwen2, window": ("qwen2", ALL_WINDOWS),
    "qwen3, window": ("qwen3", ALL_WINDOWS),
    "qwen3, yarn rope": ("qwen3", {"rope_parameters": ROPE["yarn"]}),
    "qwen3, tied head": ("qwen3", {"tie_word_embeddings": True}),
    "gpt_oss, rounded yarn range": (
        "gpt_oss",
        {"rope_parameters": ROPE["yarn"] | {"truncate": True} | BETAS, **MIXED_LAYERS},
    ),
    "phi3, longrope": (
        "phi3",
        {
            "rope_parameters": ROPE["longrope"] | {"partial_rotary_factor": 1.0},
            "original_max_position_embeddings": ORIGINAL,
        },
    ),
    "phi3, window": ("phi3", {"sliding_window": WINDOW}),
    "gemma2, long window": ("gemma2", {"sliding_window": CONTEXT}),
    "gemma3_text, long window": ("gemma3_text", {"sliding_window": CONTEXT}),
    "ministral, long window": ("ministral", {"sliding_window": CONTEXT}),
    "olmo3, long window": ("olmo3", {"sliding_window": CONTEXT}),
    "starcoder2, window": ("starcoder2", {"sliding_window": WINDOW}),
}
"""Settings of which at least one runtime is known to lose one, and windows that no prompt fills."""
NO_WINDOW = {"mistral", "phi3", "starcoder2", "mixtral"}
"""Families whose plain model has no window; with one it is a variant."""
NO_WINDOW_LIST = {"qwen2", "qwen3", "qwen2_moe", "qwen3_moe"}
_GRANITE = {
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.5,
    "logits_scaling": 2.0,
    "attention_multiplier": 0.2,
}
EXTRA: dict[str, dict[str, Any]] = {
    "exaone4": {"head_dim": 32},
    "gemma2": {"query_pre_attn_scalar": 24},
    "gemma3_text": {"query_pre_attn_scalar": 24, **MIXED_LAYERS},
    "gpt_oss": MIXED_LAYERS,
    "granite": _GRANITE,
    "granitemoe": _GRANITE,
    "olmoe": {"num_key_value_heads": 4},
    "qwen3_moe": {"head_dim": 32, "norm_topk_prob": True},
    "smollm3": {
        "num_hidden_layers": 4,
        "no_rope_layers": [1, 1, 1, 0],
        "use_sliding_window": False,
        "layer_types": ["full_attention"] * 4,
    },
}
"""What a family's models have besides: multipliers and windows that are not their neutral values,
and what real models of the family name in config.json.
"""


def case_names() -> list[str]:
    """Return the names of all models: the families of the packed path, and the variants."""
    from local_backend.packed.families import FAMILIES

    return sorted([*FAMILIES, *VARIANTS])


def build_case(name: str) -> tuple[Any, Any]:
    """Return a random model and its tokenizer. Raise whatever transformers raises."""
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    logging.getLogger("transformers").setLevel(logging.ERROR)
    family, changes = VARIANTS.get(name, (name, {}))
    tokenizer = tiny.build_tokenizer()
    config_class = CONFIG_MAPPING[family]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        defaults = config_class().to_dict()
        settings = tiny_families.tiny_settings(defaults)
        settings |= tiny_families.EXCEPTIONS.get(family, {})
        settings |= {key: size for key, size in SIZES.items() if key in defaults}
        settings |= plain_windows(family) | EXTRA.get(family, {}) | changes
        settings |= {"vocab_size": len(tokenizer), "use_cache": True, "is_decoder": False}
        settings |= {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id}
        settings |= {"pad_token_id": tokenizer.convert_tokens_to_ids("<|endoftext|>")}
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config_class(**settings)).eval()
    randomize(model)
    return model, tokenizer


def plain_windows(family: str) -> dict[str, Any]:
    """Return the settings that switch the windows off, where they are an option."""
    if family in NO_WINDOW:
        return {"sliding_window": None}
    if family in NO_WINDOW_LIST:
        return {"use_sliding_window": False, "layer_types": ["full_attention"] * 2}
    return {}


def randomize(model: Any) -> None:
    """Give every weight a value of its own: also norms and biases, which begin as ones or zeros."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                weight.add_(torch.randn_like(weight) * 0.2)
            elif weight.ndim == 1:
                weight.normal_(std=0.3)
            elif "embed" in name:
                weight.normal_(std=0.5)
            else:
                weight.normal_(std=0.25)


def export_case(name: str, folder: Path) -> Mapping[str, Any]:
    """Write a model's folder as exports have it, with a second end token that its answer meets.

    The answer to the first prompt is cut by it, so that every runtime has to know it.
    """
    model, tokenizer = build_case(name)
    stops = [tokenizer.eos_token_id, second_end_token(model, tokenizer)]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_portable_config(folder, tokenizer, stops)
    return {"stop_ids": stops}


def second_end_token(model: Any, tokenizer: Any) -> int:
    """Return a token that the answer to the first prompt has first at its middle or later."""
    ids = tokenizer.apply_chat_template(CONVERSATIONS[0], add_generation_prompt=True)["input_ids"]
    output = model.generate(
        input_ids=torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        max_new_tokens=ANSWER,
        do_sample=False,
        eos_token_id=-1,
    )
    answer = output[0, len(ids) :].tolist()
    later = [t for at, t in enumerate(answer) if at >= ANSWER // 2 and t not in answer[:at]]
    return int(later[0] if later else answer[-1])


def _conversation(*texts: str) -> list[dict[str, str]]:
    roles = ["user", "assistant"]
    return [{"role": roles[at % 2], "content": text} for at, text in enumerate(texts)]


CONVERSATIONS = [
    _conversation("Where is the parcel for Lyon? The parcel never came, and I want my money back."),
    _conversation("In Lyon?"),  # shorter than what rope settings stretch
    _conversation("Where?", "It is in Oslo.", "And the other one?\n\nAnother  line, 12345 items."),
    [
        {"role": "system", "content": "You route tickets. Answer with one word."},
        {"role": "user", "content": "The parcel never came: it's not for KYIV, nor Zürich."},
    ],
]
