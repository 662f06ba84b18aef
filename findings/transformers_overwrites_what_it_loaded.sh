#!/usr/bin/env bash
# from_pretrained reads a weight from the file, initializes it again, and reports nothing missing.
#
# Packages: transformers 5.23.0, torch 2.13.0.
# Guess: what the file holds, in the right shape and under the right name, is what the model has; what is initialized
# is named in missing_keys (output_loading_info=True), so empty lists mean a model that is what was saved.
# Behavior: since version 5 _init_weights runs after loading, over every module that is not known to be complete, and
# only the functions of torch.nn.init know which weights were loaded. What writes through .data (the usual way in
# version 4 and in most classes of one's own) overwrites them. A guard for such classes (issue 46620, June 2026) sees
# whether all of a module is loaded, and takes its non-persistent buffers, which are never in a file, for missing. So:
#   - a class with a weight beside a non-persistent buffer (a mask, a table) loses the weight, and all lists are
#     empty;
#   - where one weight of a module is missing (a bias that the new configuration asks for), its loaded neighbors are
#     initialized as well, and missing_keys names the bias alone;
#   - one family of the library itself does it: Youtu's _init_weights sets the pad token's row of the embedding to
#     zero. Of 151 families of MODEL_FOR_CAUSAL_LM_MAPPING that could be built small, saved and loaded again, it alone
#     came back changed. Its head is tied, so where the pad token is the end token (as many set it for training) the
#     end's logit is 0.0 everywhere after reloading.
# Why it matters: a check of the loading info, the one there is, passes. Training goes on from it, or the model is
# served.
# Way out: compare the tensors of the file with state_dict() after loading; write nn.init.normal_(module.weight) in
# classes.
# Seen:
#   own class, .data                  changed: gate.scale                                  missing_keys: none
#   own class, .data, a bias more     changed: gate.scale, linear.weight                   missing_keys: linear.bias
#   own class, nn.init                changed: none                                        missing_keys: none
#   own class, nn.init, a bias more   changed: none                                        missing_keys: linear.bias
#   Llama, pad token = end token      changed: none                                        missing_keys: none
#   Youtu, pad token = end token      changed: lm_head.weight, model.embed_tokens.weight   missing_keys: none
#   Youtu's rows changed: [2]; the end token's logits: between -3.1 and 2.8 before, 0.0 and 0.0 after
# Exit status: 1 when that has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip --disable-pip-version-check install --quiet torch==2.13.0 transformers==5.23.0
cd "$folder"
cat > try.py <<'PYTHON'
import sys

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PretrainedConfig, PreTrainedModel
from transformers import YoutuConfig, YoutuForCausalLM

END = 2


class Config(PretrainedConfig):
    model_type = "own"

    def __init__(self, bias=False, **more):
        self.bias = bias
        super().__init__(**more)


class Gate(nn.Module):
    """A weight beside a mask that is made, not saved."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(8))
        self.register_buffer("mask", torch.ones(8, 8).tril(), persistent=False)


class Own(PreTrainedModel):
    config_class = Config

    def __init__(self, config):
        super().__init__(config)
        self.gate = Gate()
        self.linear = nn.Linear(8, 8, bias=config.bias)
        self.embedding = nn.Embedding(16, 8)
        self.post_init()


class OldWay(Own):
    """Initialize as the classes of transformers 4 did."""

    def _init_weights(self, module):
        if isinstance(module, nn.Linear | nn.Embedding):
            module.weight.data.normal_(mean=0.0, std=0.02)
            if getattr(module, "bias", None) is not None:
                module.bias.data.zero_()
        elif isinstance(module, Gate):
            module.scale.data.zero_()


class NewWay(Own):
    def _init_weights(self, module):
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, mean=0.0, std=0.02)
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, Gate):
            nn.init.zeros_(module.scale)


def reload(title, model, **more):
    """Save and load; return the names of what changed, of what is reported, and the loaded model."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.3)
    model.save_pretrained("saved")
    loaded, report = type(model).from_pretrained("saved", output_loading_info=True, **more)
    before, after = model.state_dict(), loaded.state_dict()
    changed = sorted(name for name, weight in before.items() if not torch.equal(weight, after[name]))
    missing = sorted(report["missing_keys"])
    assert not any(report[key] for key in ("unexpected_keys", "mismatched_keys", "error_msgs"))
    print(f"{title:34}changed: {', '.join(changed) or 'none':44}missing_keys: {', '.join(missing) or 'none'}")
    return changed, missing, loaded


torch.manual_seed(0)
SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "pad_token_id": END,
    "eos_token_id": END,
    "bos_token_id": 1,
    "tie_word_embeddings": True,
}
MLA = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}
youtu = YoutuForCausalLM(YoutuConfig(**SMALL, **MLA)).eval()
with_bias = {"config": Config(bias=True)}
found = [
    reload("own class, .data", OldWay(Config()))[:2],
    reload("own class, .data, a bias more", OldWay(Config()), **with_bias)[:2],
    reload("own class, nn.init", NewWay(Config()))[:2],
    reload("own class, nn.init, a bias more", NewWay(Config()), **with_bias)[:2],
    reload("Llama, pad token = end token", LlamaForCausalLM(LlamaConfig(**SMALL)))[:2],
]
*last, loaded = reload("Youtu, pad token = end token", youtu)
old, new = youtu.get_input_embeddings().weight, loaded.get_input_embeddings().weight
rows = (old != new).any(1).nonzero().flatten().tolist()
tokens = torch.arange(3, 40)[None]
with torch.no_grad():
    logits = [model.eval()(tokens).logits[0, :, END] for model in (youtu, loaded)]
spans = [f"{ends.min().item():.1f} and {ends.max().item():.1f}" for ends in logits]
print(f"Youtu's rows changed: {rows}; the end token's logits: between {spans[0]} before, {spans[1]} after")
expected = [
    (["gate.scale"], []),
    (["gate.scale", "linear.weight"], ["linear.bias"]),
    ([], []),
    ([], ["linear.bias"]),
    ([], []),
]
same = found == expected and last == [["lm_head.weight", "model.embed_tokens.weight"], []]
same = same and rows == [END] and bool((logits[1] == 0).all()) and bool((logits[0] != 0).all())
print("as described" if same else "changed")
sys.exit(not same)
PYTHON
HF_HUB_OFFLINE=1 "$folder/env/bin/python" -W ignore try.py 2> log || { cat log >&2; exit 1; }
