#!/usr/bin/env bash
# Youtu's from_pretrained sets the embedding of the pad token to zero, whatever the file has.
#
# Versions: transformers 5.24.0, torch 2.13.0 (Python 3.10 or later).
#
# Guess: from_pretrained gives back the tensors of the file, in every family; the functions of
# transformers.initialization leave weights alone that were loaded.
#
# Behavior: they know a loaded tensor by a mark on it, and a slice of it has no mark. The common
# _init_weights looks at the mark before it sets the row of pad_token_id to zero. Youtu's own one
# does not. So a model with pad_token_id loses that row when it is read, with no missing key and
# no warning. Its head is tied to the embedding, so the logit of that token is zero too: a model
# that pads with its end token can hardly end. Of the 161 causal language models that were saved
# and read so with 5.23.0, Youtu alone does it.
#
# Way out: read it with pad_token_id unset in config.json, and set it afterwards.
#
# Seen:
#   youtu  row of the pad token: saved 0.5, read 0.0; without pad_token_id: read 0.5
#   llama  row of the pad token: saved 0.5, read 0.5; without pad_token_id: read 0.5
#   the behavior is as described
#
# Exit status: 0 while the behavior is this, 1 when it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0
cat > "$work/load.py" <<'P'
import json
import tempfile
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
PAD = 7
SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": PAD,
    "tie_word_embeddings": True,
}
PARTS = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "v_head_dim": 8}
MODELS = {"youtu": PARTS | {"qk_nope_head_dim": 8}, "llama": {}}


def read_row(folder):
    """Return the pad token's row of the embedding that is read."""
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"]
    return float(model.get_input_embeddings().weight[PAD].detach().abs().max())


rows = {}
for name, parts in MODELS.items():
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **SIZES, **parts))
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(0.5)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        with_pad = read_row(folder)
        config = Path(folder) / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"pad_token_id": None}))
        without = read_row(folder)
    rows[name] = (with_pad, without)
    print(
        f"{name}  row of the pad token: saved 0.5, read {with_pad};"
        f" without pad_token_id: read {without}"
    )
raise SystemExit(0 if rows == {"youtu": (0.0, 0.5), "llama": (0.5, 0.5)} else 1)
P
HF_HUB_OFFLINE=1 "$work/venv/bin/python" "$work/load.py"
echo "the behavior is as described"
