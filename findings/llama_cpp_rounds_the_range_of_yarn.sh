#!/usr/bin/env bash
# llama.cpp rounds the range of dimensions that YaRN blends, which gpt-oss's configuration forbids.
#
# Versions: xllamacpp 2026.10.11549 (llama.cpp), gguf 0.19.0, transformers 5.23.0, torch 2.13.0.
#
# YaRN blends two kinds of angles between two dimensions that follow from beta_fast and beta_slow.
# `truncate: false` in rope_parameters, gpt-oss's own setting, takes them as they are; otherwise they
# are rounded outwards.
#
# Guess: a GGUF file can say which, or llama.cpp does as gpt-oss wants for its architecture.
#
# Behavior: there is no such key, and llama.cpp always rounds (`ggml_rope_yarn_corr_dims`): without
# a word, the probabilities of a model with `truncate: false` are others, from the first tokens on.
#
# Way out: none in the file. Measure with `export --verify` whether the answers bear it.
#
# Seen (largest difference of a log-probability after 24 tokens):
#   truncate true: 2.3e-05
#   truncate false: 0.089
#   the behavior is as described
#
# Exit status: 0 while the behavior is this, 1 when it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 gguf==0.19.0 \
  xllamacpp==2026.10.11549
cd "$work"
HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'PYTHON'
import json
import sys
import urllib.request

import torch
import xllamacpp
from gguf import GGUFWriter, RopeScalingType
from transformers import LlamaConfig, LlamaForCausalLM

HEADS, WIDTH, ROWS, LAYERS = 2, 128, 64, 2
FACTOR, ORIGINAL, BASE = 32.0, 4096, 150000.0
NAMES = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def build(truncate):
    torch.manual_seed(0)
    rope = {
        "rope_type": "yarn", "rope_theta": BASE, "factor": FACTOR, "truncate": truncate,
        "original_max_position_embeddings": ORIGINAL, "beta_fast": 32.0, "beta_slow": 1.0,
    }
    config = LlamaConfig(
        vocab_size=ROWS, hidden_size=WIDTH, intermediate_size=WIDTH, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=HEADS, rms_norm_eps=1e-6,
        max_position_embeddings=int(FACTOR * ORIGINAL), initializer_range=0.3,
        rope_parameters=rope,
    )
    return LlamaForCausalLM(config).eval()


def write(model, path):
    """Write a model as GGUF: queries and keys in llama.cpp's order of rows."""
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(int(FACTOR * ORIGINAL))
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(BASE)
    writer.add_rope_scaling_type(RopeScalingType.YARN)
    writer.add_rope_scaling_factor(FACTOR)
    writer.add_rope_scaling_orig_ctx_len(ORIGINAL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([chr(40 + at) for at in range(ROWS)])
    writer.add_token_types([1] * ROWS)
    writer.add_token_merges([") *"])  # a file without any does not load
    writer.add_eos_token_id(0)
    state = model.state_dict()
    tensors = {
        "token_embd": state["model.embed_tokens.weight"],
        "output_norm": state["model.norm.weight"],
        "output": state["lm_head.weight"],
    }
    for layer in range(LAYERS):
        for theirs, ours in NAMES.items():
            weight = state[f"model.layers.{layer}.{theirs}.weight"]
            if ours in ("attn_q", "attn_k"):
                halves = weight.reshape(HEADS, 2, WIDTH // HEADS // 2, WIDTH)
                weight = halves.transpose(1, 2).reshape(WIDTH, WIDTH)
            tensors[f"blk.{layer}.{ours}"] = weight
    for name, weight in tensors.items():
        writer.add_tensor(f"{name}.weight", weight.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def last_probabilities(path, ids):
    """Return llama.cpp's log-probabilities of the token after `ids`, by token."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path = path
    parameters.n_ctx, parameters.n_parallel, parameters.warmup = 256, 1, False
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(parameters)
    body = {
        "prompt": ids, "n_predict": 1, "temperature": 0, "n_probs": ROWS, "ignore_eos": True,
        "post_sampling_probs": False,
    }
    request = urllib.request.Request(
        server.listening_address + "/completion", json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as reply:
        [made] = json.load(reply)["completion_probabilities"]
    return {one["id"]: one["logprob"] for one in made["top_logprobs"]}


found = {}
for truncate in (True, False):
    model, ids = build(truncate), [3 + (7 * at) % 60 for at in range(24)]
    write(model, f"{truncate}.gguf")
    with torch.no_grad():
        ours = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    theirs = last_probabilities(f"{truncate}.gguf", ids)
    found[truncate] = max(abs(float(ours[token]) - value) for token, value in theirs.items())
    print(f"truncate {str(truncate).lower()}: {found[truncate]:.2g}")
is_so = found[True] < 1e-3 and found[False] > 1e-2
print("the behavior is as described" if is_so else "the behavior has changed")
sys.exit(0 if is_so else 1)
PYTHON
