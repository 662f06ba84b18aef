#!/usr/bin/env bash
# A GGUF file of a Llama with attention biases loses them in transformers, and no report says so.
#
# Versions: transformers 5.23.0, gguf 0.19.0, torch 2.13.0, safetensors (Python 3.10 or later).
#
# llama.cpp's architecture "llama" has optional biases (blk.N.attn_q.bias and so on): a Llama with
# `attention_bias: true` is written with them.
#
# Guess: `from_pretrained(..., gguf_file=..., output_loading_info=True)` gives the same model as the
# safetensors folder that the file was made from; or at least `unexpected_keys` names the tensors of
# the file that it did not use, as it does for a safetensors folder.
#
# Behavior: the configuration read from the file has attention_bias False, the eight biases are
# dropped, the logits differ, and missing_keys, unexpected_keys and mismatched_keys are all
# empty. For a safetensors folder with attention_bias False the same eight are reported.
#
# Way out: compare the number of values in a GGUF file with that of the loaded model.
#
# Seen:
#   safetensors, attention_bias true: 0 unexpected, largest difference of a logit 0
#   safetensors, attention_bias false: 8 unexpected
#   GGUF: 0 missing, 0 unexpected, 0 mismatched; attention_bias False; largest difference of a logit 4.8
#   largest difference from the model with its biases set to zero: 0
#   the behavior is as described
#
# Exit status: 0 while the behavior is this, 1 when it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 gguf==0.19.0 \
  safetensors accelerate
cd "$work"
HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'E'
import json
import pathlib
import sys

import torch
import transformers
from gguf import GGUFWriter
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=64,
    attention_bias=True, initializer_range=0.4, rms_norm_eps=1e-6,
)
model = LlamaForCausalLM(config).eval()
for name, weight in model.named_parameters():
    if name.endswith(".bias"):
        torch.nn.init.normal_(weight, std=0.4)
model.save_pretrained("folder")
ids = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
with torch.no_grad():
    expected = model(ids).logits
    biases = {n: w.clone() for n, w in model.named_parameters() if n.endswith(".bias")}
    for name in biases:
        model.get_parameter(name).zero_()
    without_biases = model(ids).logits
    for name, bias in biases.items():
        model.get_parameter(name).copy_(bias)


def load(folder, **options):
    found, info = AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, **options
    )
    with torch.no_grad():
        return found.eval(), info, float((found(ids).logits - expected).abs().max())


_, info, difference = load("folder")
print(f"safetensors, attention_bias true: {len(info['unexpected_keys'])} unexpected,"
      f" largest difference of a logit {difference:.2g}")
whole = difference == 0 and not info["unexpected_keys"]
path = pathlib.Path("folder/config.json")
kept = path.read_text()
path.write_text(json.dumps(json.loads(kept) | {"attention_bias": False}))
_, info, _ = load("folder")
path.write_text(kept)
print(f"safetensors, attention_bias false: {len(info['unexpected_keys'])} unexpected")
reported = len(info["unexpected_keys"]) == 8

# As llama.cpp's convert_hf_to_gguf.py writes a Llama: the rows of q and k in another order.
NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm", "model.layers": "blk",
}


def permuted(values, heads):
    return (
        values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
        .swapaxes(1, 2)
        .reshape(values.shape)
    )


pathlib.Path("gguf").mkdir()
writer = GGUFWriter("gguf/tiny.gguf", "llama")
writer.add_context_length(64)
writer.add_embedding_length(32)
writer.add_block_count(2)
writer.add_feed_forward_length(48)
writer.add_head_count(4)
writer.add_head_count_kv(4)
writer.add_layer_norm_rms_eps(1e-6)
writer.add_rope_freq_base(10000.0)
writer.add_vocab_size(64)
for name, tensor in model.state_dict().items():
    values = tensor.numpy()
    if "q_proj" in name or "k_proj" in name:
        values = permuted(values, 4)
    for theirs, ours in NAMES.items():
        name = name.replace(theirs, ours)
    writer.add_tensor(name, values.copy())
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

found, info, difference = load("gguf", gguf_file="tiny.gguf")
counts = [len(info[key]) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")]
print(f"GGUF: {counts[0]} missing, {counts[1]} unexpected, {counts[2]} mismatched; attention_bias"
      f" {found.config.attention_bias}; largest difference of a logit {difference:.2g}")
with torch.no_grad():
    rest = float((found(ids).logits - without_biases).abs().max())
print(f"largest difference from the model with its biases set to zero: {rest:.1g}")
if whole and reported and counts == [0, 0, 0] and difference > 0.1 and rest < 1e-3:
    print("the behavior is as described")
else:
    print("the behavior has changed")
    sys.exit(1)
E
