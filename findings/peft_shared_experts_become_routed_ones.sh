#!/usr/bin/env bash
# PEFT: shared experts and dense MLPs of a model with experts get no adapter, neither by all-linear nor by name.
#
# Packages: peft 0.21.2, transformers 5.24.0, torch 2.13.0.
# Guess: target_modules="all-linear" adapts every nn.Linear but the output layer, and ["shared_experts.down_proj"] that layer
# of each block.
# Behavior: for about twenty families (here DeepSeek-V3) PEFT translates the names that their experts had in transformers 4
# (gate_proj, up_proj, down_proj, gate) to the parameters in which transformers 5 stacks them, whatever is before the name.
# So the dense MLP of the first block and all shared experts, which still are nn.Linear, lose their adapters, and
# "shared_experts.down_proj" adapts the routed experts, with as many times the weights. Nothing is raised.
# Why it matters: shared experts see every token. Who leaves the routed experts out on purpose trains just those.
# Way out: name the weights: target_parameters=["shared_experts.down_proj.weight"].
# Seen:
#   linear layers without an adapter after all-linear: mlp.down_proj, mlp.gate_proj, mlp.shared_experts.down_proj,
#     mlp.shared_experts.gate_proj, mlp.shared_experts.up_proj, mlp.up_proj
#   ["shared_experts.down_proj"] adapts: mlp.experts
#   target_parameters=["shared_experts.down_proj.weight"] adapts: mlp.shared_experts.down_proj
# Exit status: 1 when that has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip --disable-pip-version-check install --quiet torch==2.13.0 transformers==5.24.0 peft==0.21.2
cat > "$folder/try.py" <<'PYTHON'
import re
import sys

from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM


def build():
    """Return a tiny DeepSeek-V3: a dense block, then one with routed and shared experts."""
    latent = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 16}
    shape = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "first_k_dense_replace": 1}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4}
    return DeepseekV3ForCausalLM(DeepseekV3Config(**latent, **experts, **shape, **heads))


def kinds(names):
    return sorted({re.sub(r"^.*layers\.\d+\.", "", name) for name in names})


def adapted(**targets):
    """Return the modules with an adapter."""
    model = get_peft_model(build(), LoraConfig(r=2, **targets)).base_model.model
    return {name.partition(".lora_A")[0].removesuffix(".base_layer") for name, _ in model.named_parameters() if ".lora_A." in name}


linear = {name for name, module in build().named_modules() if isinstance(module, nn.Linear) and name != "lm_head"}
left_out = kinds(linear - adapted(target_modules="all-linear"))
by_name = kinds(adapted(target_modules=["shared_experts.down_proj"]))
by_weight = kinds(adapted(target_modules=[], target_parameters=["shared_experts.down_proj.weight"]))
print("linear layers without an adapter after all-linear:", ", ".join(left_out))
print('["shared_experts.down_proj"] adapts:', ", ".join(by_name))
print('target_parameters=["shared_experts.down_proj.weight"] adapts:', ", ".join(by_weight))
parts = [f"{place}.{part}_proj" for place in ("mlp", "mlp.shared_experts") for part in ("down", "gate", "up")]
same = left_out == sorted(parts) and by_name == ["mlp.experts"] and by_weight == ["mlp.shared_experts.down_proj"]
print("as described" if same else "changed")
sys.exit(not same)
PYTHON
HF_HUB_OFFLINE=1 "$folder/env/bin/python" -W ignore "$folder/try.py" 2> "$folder/log" || { cat "$folder/log" >&2; exit 1; }
