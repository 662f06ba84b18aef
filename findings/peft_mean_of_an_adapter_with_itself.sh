#!/usr/bin/env bash
# PEFT: the mean of an adapter with itself is twice the adapter, half of it, or something else; seldom the adapter.
#
# Packages: peft 0.21.2 (0.21.0 alike), transformers 5.23.0, torch 2.13.0.
# Guess: add_weighted_adapter(["a", "b"], [0.5, 0.5]) of two equal adapters gives that adapter, with every combination
# type (the types differ in how they resolve conflicts, and there is none here; density is 1.0), for every kind of LoRA that
# it accepts; and ["a"] with [1.0] gives "a".
# Behavior: "linear" and similar types average the A and the B matrices separately, each with the root of the weight,
# so the product contains the cross terms B1 A2 as well: twice the update for equal adapters; for different ones about
# as much that belongs to neither adapter as belongs to both. "ties" multiplies by the weights after it has taken the
# mean: half. "cat", "svd", dare_linear_svd and magnitude_prune_svd are right for plain LoRA. With use_rslora the new
# one's scale is the root of its rank (here 2), not 1: one adapter alone comes out wrong, and only the half of "ties"
# right, by chance. With use_dora the magnitudes that were trained are left behind, with lora_bias the biases. Nothing
# is logged or raised. (huggingface/peft issues 3004 and 3761 and pull request 3449, 2026.)
# Why it matters: averaging the adapters of a sweep's best runs, or of two seeds, is a common way to a better adapter;
# with the type that keeps the rank ("linear") it loads and generates without an error.
# Way out: "cat" for plain LoRA; otherwise merge each into the weights and average those.
# Seen (norm of the new update over the old one's; largest difference of a logit over the largest logit in brackets):
#                                      LoRA         use_rslora           use_dora          lora_bias
#   linear                      2.00 (  0.94)      4.00 (  1.39)      2.00 (  0.85)      2.00 (  1.16)
#     a alone                   1.00 (  0.00)      2.00 (  1.21)      1.00 (  0.48)      1.00 (  0.98)
#   cat                         1.00 (  0.00)      2.83 (  1.35)      1.00 (  0.48)      1.00 (  0.98)
#   svd                         1.00 (  0.00)      2.00 (  1.21)      1.00 (  0.48)      1.00 (  0.98)
#   ties                        0.50 (  0.66)      1.00 (  0.00)      0.50 (  0.88)      0.50 (  1.03)
#   magnitude_prune             2.00 (  0.94)      4.00 (  1.39)      2.00 (  0.85)      2.00 (  1.16)      (and so on)
#   the mean of two equal ones is that one, of 11 types: {'LoRA': 4, 'use_rslora': 4, 'use_dora': 0, 'lora_bias': 0}
#   one with weight 1 is that one, of 11 types: {'LoRA': 11, 'use_rslora': 0, 'use_dora': 0, 'lora_bias': 0}
# Exit status: 1 when that has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip --disable-pip-version-check install --quiet torch==2.13.0 transformers==5.23.0 peft==0.21.2
cat > "$folder/try.py" <<'PYTHON'
import sys

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

TYPES = "linear cat svd ties ties_svd dare_linear dare_linear_svd dare_ties dare_ties_svd magnitude_prune magnitude_prune_svd"
KINDS = {"LoRA": {}, "use_rslora": {"use_rslora": True}, "use_dora": {"use_dora": True}, "lora_bias": {"lora_bias": True}}
TOKENS = torch.arange(3, 20)[None]


def build(settings):
    """Return a tiny Llama with two equal adapters, a and b, of rank 4, as if they were trained."""
    torch.manual_seed(0)
    shape = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "initializer_range": 0.2}
    base = LlamaForCausalLM(LlamaConfig(num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, **shape))
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"], **settings)
    model = get_peft_model(base, config, adapter_name="a")
    model.add_adapter("b", config)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name.replace(".b.", ".a."))))
            with torch.no_grad():
                weight.mul_(1 + 0.3 * noise) if "magnitude" in name else weight.copy_(0.15 * noise)
    return model.eval()


def logits(model, adapter):
    model.set_adapter(adapter)
    with torch.no_grad():
        return model(TOKENS).logits


right = {}
print(f"{'':22}" + "".join(f"{kind:>19}" for kind in KINDS))
for way in TYPES.split():
    for title, adapters, weights in ((way, ["a", "b"], [0.5, 0.5]), ("  a alone", ["a"], [1.0])):
        line = f"{title:22}"
        for kind, settings in KINDS.items():
            model = build(settings)
            density = {} if way in ("linear", "cat", "svd") else {"density": 1.0}
            model.add_weighted_adapter(adapters, weights, "new", combination_type=way, **density)
            layer = model.base_model.model.model.layers[0].self_attn.q_proj
            ratio = (layer.get_delta_weight("new").norm() / layer.get_delta_weight("a").norm()).item()
            old, other = logits(model, "a"), logits(model, "b")
            assert torch.equal(old, other)
            off = ((logits(model, "new") - old).abs().max() / old.abs().max()).item()
            right.setdefault((kind, len(adapters)), []).append(off < 1e-3)
            line += f"{ratio:10.2f} ({off:6.2f})"
        print(line)
means = {kind: sum(right[kind, 2]) for kind in KINDS}
alone = {kind: sum(right[kind, 1]) for kind in KINDS}
print("the mean of two equal ones is that one, of 11 types:", means)
print("one with weight 1 is that one, of 11 types:", alone)
same = means == {"LoRA": 4, "use_rslora": 4, "use_dora": 0, "lora_bias": 0}
same = same and alone == {"LoRA": 11, "use_rslora": 0, "use_dora": 0, "lora_bias": 0}
print("as described" if same else "changed")
sys.exit(not same)
PYTHON
HF_HUB_OFFLINE=1 "$folder/env/bin/python" -W ignore "$folder/try.py" 2> "$folder/log" || { cat "$folder/log" >&2; exit 1; }
