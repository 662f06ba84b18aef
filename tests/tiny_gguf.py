"""A GGUF file of the tiny model, whole or with a part wrong."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "model.layers": "blk",
}
"""llama.cpp's names for the parts of a Llama (gguf 0.19, `get_tensor_name_map`)."""


def write_gguf(
    model: Path,
    folder: Path,
    *,
    blocks: int = 2,
    without: Collection[str] = (),
    extra_tensors: Mapping[str, int] = {},
) -> Path:
    """Write the model in `model` as `folder`/tiny.gguf, with `blocks` layers in its header.

    Tensors whose name begins as one of `without` are left out; `more` adds some of that length.
    """
    import numpy as np
    from gguf import GGUFWriter
    from safetensors.numpy import load_file

    folder.mkdir(parents=True)
    path = folder / "tiny.gguf"
    writer = GGUFWriter(path, "llama")
    config = json.loads((model / "config.json").read_text())
    _write_header(writer, config, blocks)
    _write_tokenizer(writer, json.loads((model / "tokenizer.json").read_text()))
    for name, values in load_file(model / "model.safetensors").items():
        for ours, theirs in GGUF_NAMES.items():
            name = name.replace(ours, theirs)
        if not name.startswith(tuple(without)):
            writer.add_tensor(name, values)
    for name, length in extra_tensors.items():
        writer.add_tensor(name, np.zeros(length, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_header(writer: Any, config: Mapping[str, Any], blocks: int) -> None:
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(blocks)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(config["vocab_size"])


def _write_tokenizer(writer: Any, tokenizer: Mapping[str, Any]) -> None:
    ids = tokenizer["model"]["vocab"]
    tokens = sorted(ids, key=ids.__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * len(tokens))
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
