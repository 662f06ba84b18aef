"""A GGUF file of an exported tiny Llama that llama.cpp's server can chat with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tiny_gguf import GGUF_NAMES, _write_header


def write_served_gguf(model: Path, file: Path) -> Path:
    """Write the model with its template, end token and llama.cpp's order of q and k; return it."""
    import numpy as np
    from gguf import GGUFWriter
    from safetensors.numpy import load_file

    config = json.loads((model / "config.json").read_text())
    writer = GGUFWriter(file, "llama")
    _write_header(writer, config, config["num_hidden_layers"])
    heads, key_heads = config["num_attention_heads"], config["num_key_value_heads"]
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    _write_vocabulary(writer, model)
    for name, values in load_file(model / "model.safetensors").items():
        if "q_proj" in name or "k_proj" in name:
            count = heads if "q_proj" in name else key_heads
            halves = values.reshape(count, 2, values.shape[0] // count // 2, -1)
            values = halves.swapaxes(1, 2).reshape(values.shape)
        for ours, theirs in GGUF_NAMES.items():
            name = name.replace(ours, theirs)
        writer.add_tensor(name, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _write_vocabulary(writer: Any, model: Path) -> None:
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    settings = json.loads((model / "tokenizer_config.json").read_text())
    added = {one["content"]: one["id"] for one in tokenizer["added_tokens"]}
    ids = {**tokenizer["model"]["vocab"], **added}
    tokens = sorted(ids, key=ids.__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in added else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_eos_token_id(ids[settings["eos_token"]])
    writer.add_add_bos_token(False)
    template = model / "chat_template.jinja"
    text = template.read_text() if template.exists() else settings["chat_template"]
    writer.add_chat_template(text)
