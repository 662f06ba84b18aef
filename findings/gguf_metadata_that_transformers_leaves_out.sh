#!/usr/bin/env bash
# transformers reads a GGUF file's tensors and only some of its metadata: no family keeps its rope scaling.
#
# Packages: transformers 5.23.0, gguf 0.19.0, torch 2.13.0, numpy 2.4.6, accelerate 1.15.0.
# Guess: from_pretrained(folder, gguf_file=...) gives a configuration that says what the file says, for each key which
# llama.cpp reads for that family and which the configuration of transformers has a field for; or it raises.
# Behavior: the keys are a table for each family, and what is not in it becomes the default of the configuration's class.
# Of 14 decoder families none takes the rope scaling (YaRN, linear); gpt-oss, which looks for it, reads another field and
# raises TypeError. StableLM and StarCoder2 take no rope base (StarCoder2's files have 1e5 or 1e6, transformers computes
# with 1e4), three of 4 not the share of rotated dimensions (Phi-4-mini has 0.75), 2 of 4 not the window, Gemma 2 not the
# soft caps, none of 4 the width of an expert. Nothing is logged. The weights load without a missing or an unexpected
# key, and the logits are others.
# Why it matters: GGUF files are loaded in transformers to tune or to compare them; a difference to llama.cpp is then
# taken for one of the quantization.
# Way out: read the keys with gguf.GGUFReader and give from_pretrained the right configuration: it is heeded.
# Seen:
#   gpt-oss, rope.scaling.type, ...: only 0-dimensional arrays can be converted to Python scalars
#   kept: rope scaling 0 of 14, rope base 12 of 14, rotated share 1 of 4, window 2 of 4, soft caps 0 of 1, expert width 0 of 4
#   rope base lost: stablelm, starcoder2
#   rotated share lost: nemotron, phi3, stablelm
#   window lost: gpt-oss, phi3
#   largest difference of a logit over the largest logit, as read and with the model's own configuration:
#     qwen2 with YaRN              1.47   0.00000
#     starcoder2 with base 1e6     0.98   0.00000
#     phi3 with 0.75 rotated       1.53   0.00000
#     gemma2 with soft caps 5, 3   4.66   0.00000
# Exit status: 1 when that has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip --disable-pip-version-check install --quiet torch==2.13.0 transformers==5.23.0 gguf==0.19.0 numpy==2.4.6 accelerate==1.15.0
cd "$folder"
cat > try.py <<'PYTHON'
import sys

import gguf
import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, Gemma2Config, Phi3Config, Qwen2Config, Starcoder2Config

ROTARY = (
    "llama qwen2 qwen2moe qwen3 qwen3moe gpt-oss phi3 stablelm starcoder2 nemotron gemma2 gemma3 falcon minimax-m2"
).split()
PARTIAL = "phi3 stablelm nemotron minimax-m2".split()
WINDOWS = "phi3 gpt-oss gemma2 gemma3".split()
EXPERTS = "qwen2moe qwen3moe gpt-oss minimax-m2".split()
HEADS, HEAD = 4, 16
torch.set_num_threads(1)


def write(family, keys, tensors):
    writer = gguf.GGUFWriter(f"{family}.gguf", family)
    for name, value in keys.items():
        add = {str: writer.add_string, float: writer.add_float32, int: writer.add_uint32}[type(value)]
        add(f"{family}.{name}", value)
    writer.add_token_list([f"token{number}" for number in range(64)])
    writer.add_pad_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for name, tensor in tensors.items():
        writer.add_tensor(name, np.ascontiguousarray(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def shape(family, layers=2, kv=2):
    return {
        "block_count": layers, "embedding_length": HEADS * HEAD, "feed_forward_length": 96, "context_length": 256,
        "attention.head_count": HEADS, "attention.head_count_kv": kv, "vocab_size": 64,
        "attention.layer_norm_rms_epsilon": 1e-5, "attention.layer_norm_epsilon": 1e-5,
        "attention.key_length": HEAD, "attention.value_length": HEAD, "rope.dimension_count": HEAD,
    }


def numbers(value):
    """Yield every number of a nested configuration."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from numbers(item)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield value


def read(family, keys):
    """Return the configuration that transformers reads from a file with these keys."""
    write(family, shape(family) | keys, {"token_embd.weight": np.zeros((64, HEADS * HEAD), np.float32)})
    return AutoConfig.from_pretrained(".", gguf_file=f"{family}.gguf").to_dict()


def keeps(family, keys, *expected):
    try:
        found = list(numbers(read(family, keys)))
    except TypeError as error:
        print(f"{family}, {', '.join(keys)}: {error}")
        return False
    return all(any(abs(number - value) < 1e-6 * value for number in found) for value in expected)


YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 3.25, "rope.scaling.original_context_length": 79}
CAPS = {"attn_logit_softcapping": 31.5, "final_logit_softcapping": 17.5}
SIX = {"expert_count": 6, "expert_used_count": 3}
kept = {
    "rope scaling": {family: keeps(family, YARN, 3.25, 79) for family in ROTARY},
    "rope base": {family: keeps(family, {"rope.freq_base": 123457.0}, 123457) for family in ROTARY},
    "rotated share": {family: keeps(family, {"rope.dimension_count": 12}, 0.75) for family in PARTIAL},
    "window": {family: keeps(family, {"attention.sliding_window": 77}, 77) for family in WINDOWS},
    "soft caps": {"gemma2": keeps("gemma2", CAPS, 31.5, 17.5)},
    "expert width": {family: keeps(family, SIX | {"expert_feed_forward_length": 56}, 56) for family in EXPERTS},
}
counts = {title: f"{sum(found.values())} of {len(found)}" for title, found in kept.items()}
lost = {title: sorted(family for family, right in kept[title].items() if not right) for title in ("rope base", "rotated share", "window")}
print("kept: " + ", ".join(f"{title} {count}" for title, count in counts.items()))
for title, families in lost.items():
    print(f"{title} lost: {', '.join(families)}")

COMMON = {
    "vocab_size": 64, "hidden_size": HEADS * HEAD, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": HEADS,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.3, "tie_word_embeddings": False,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}
ROPE = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "rope_theta": 10000.0}
CASES = {
    "qwen2 with YaRN": (Qwen2Config(**COMMON, rope_parameters=ROPE), {"rope.freq_base": 1e4, **{
        "rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 64}}),
    "starcoder2 with base 1e6": (Starcoder2Config(**COMMON, rope_parameters={"rope_type": "default", "rope_theta": 1e6}),
                                 {"rope.freq_base": 1e6}),
    "phi3 with 0.75 rotated": (
        Phi3Config(**COMMON, rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.75}),
        {"rope.freq_base": 1e4, "rope.dimension_count": 12}),
    "gemma2 with soft caps 5, 3": (
        Gemma2Config(**COMMON | {"tie_word_embeddings": True}, head_dim=HEAD, query_pre_attn_scalar=HEAD, sliding_window=128,
                     attn_logit_softcapping=5.0, final_logit_softcapping=3.0),
        {"rope.freq_base": 1e4, "attention.sliding_window": 128, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0}),
}
TOKENS = torch.arange(3, 43)[None]


def logits(model):
    with torch.no_grad():
        return model.eval()(TOKENS).logits


print("largest difference of a logit over the largest logit, as read and with the model's own configuration:")
differences = []
for title, (config, keys) in CASES.items():
    torch.manual_seed(0)
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config).float()
    family = config.model_type
    arch = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == family)
    names = gguf.get_tensor_name_map(arch, 2)
    weights = model.state_dict()
    if config.tie_word_embeddings:
        del weights["lm_head.weight"]
    # llama.cpp's files of a Gemma hold the norms' weights plus one.
    extra = {name: float(family == "gemma2" and "norm" in name) for name in weights}
    tensors = {names.get_name(name, (".weight", ".bias")): weight.numpy() + np.float32(extra[name])
               for name, weight in weights.items()}
    write(family, shape(family) | {"attention.layer_norm_rms_epsilon": getattr(config, "rms_norm_eps", 1e-5),
                                   "attention.layer_norm_epsilon": getattr(config, "norm_epsilon", 1e-5)} | keys, tensors)
    settings = {"gguf_file": f"{family}.gguf", "attn_implementation": "eager", "dtype": torch.float32}
    loaded, report = AutoModelForCausalLM.from_pretrained(".", output_loading_info=True, **settings)
    assert not any(report.values()), report
    mended = AutoModelForCausalLM.from_pretrained(".", config=config, **settings)
    own = logits(model)
    pair = [((logits(other) - own).abs().max() / own.abs().max()).item() for other in (loaded, mended)]
    differences.append(pair)
    print(f"  {title:26}{pair[0]:7.2f}   {pair[1]:.5f}")
same = list(counts.values()) == ["0 of 14", "12 of 14", "1 of 4", "2 of 4", "0 of 1", "0 of 4"]
same = same and all(read_ > 0.05 and mended < 1e-4 for read_, mended in differences)
print("as described" if same else "changed")
sys.exit(not same)
PYTHON
HF_HUB_OFFLINE=1 env/bin/python -W ignore try.py 2> log || { tail -30 log >&2; exit 1; }
