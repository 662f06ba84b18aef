"""Random models with the shapes of families that people tune, and SmolLM2's tokenizer."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

SHAPES: dict[str, dict[str, Any]] = {
    "qwen3": {  # 161 million weights; heads as in Qwen3 0.6B
        "model_type": "qwen3",
        "hidden_size": 768,
        "intermediate_size": 2304,
        "num_hidden_layers": 16,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "tie_word_embeddings": True,
    },
    "gemma3": {  # 132 million weights; Gemma 3 270M with SmolLM2's vocabulary
        "model_type": "gemma3_text",
        "hidden_size": 640,
        "intermediate_size": 2048,
        "num_hidden_layers": 18,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "query_pre_attn_scalar": 256,
        "sliding_window": 512,
        "max_position_embeddings": 8192,
    },
}
"""Settings of config.json by the name of the shape."""
VOCABULARY = 49_152


def make_weights(shape: str, tokenizer_from: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return the weights of a shape as job.json names them, made once for all contestants."""
    settings = SHAPES[shape] | {"vocab_size": VOCABULARY}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"cloudft-bench-{shape}-{digest}"
    if not folder.exists():
        _write_model(folder, settings, tokenizer_from)
    return [{"kind": "folder", "path": str(folder)}]


def _write_model(
    folder: Path, settings: dict[str, Any], tokenizer_from: list[dict[str, str]]
) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from local_backend.models.weights import locate_weights

    torch.manual_seed(0)
    config = AutoConfig.for_model(**settings | {"bos_token_id": 1, "eos_token_id": 2})
    made = folder.with_name(folder.name + ".part")
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(made)
    source = locate_weights("smollm2-135m", tokenizer_from)
    AutoTokenizer.from_pretrained(source).save_pretrained(made)
    shutil.rmtree(folder, ignore_errors=True)
    made.rename(folder)
