#!/usr/bin/env bash
# mlx-lm computes every text of a Phi-3 with longrope by the long factors, however short it is.
#
# Versions: mlx-lm 0.32.2, mlx 0.32.4, transformers 5.24.0, torch 2.13.0 (Python 3.10 or later).
#
# Phi-3's longrope has two lists of factors: the short ones for texts up to the original length, the
# long ones beyond it. transformers follows the length of the text.
#
# Guess: mlx-lm gives transformers' probabilities for a text that is shorter than the original length.
#
# Behavior: it gives those of the long factors, without a word; beyond the original length it is right.
# llama.cpp does the same whenever its context is longer than the original length.
#
# Way out: serve such a model where short texts are computed by the short factors (transformers), or
# limit the context to the original length, where the two lists are not needed.
#
# Seen (difference of log-probabilities, at most):
#   20 tokens, original length 32: 22; with the short factors set to the long ones: 0.00024
#   60 tokens, original length 32: 0.00024
#   the behavior is as described
#
# Exit status: 0 while the behavior is this, 1 when it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0 'mlx[cpu]==0.32.4' mlx-lm==0.32.2
cd "$work"
HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'PYTHON'
import json
import sys
from pathlib import Path

import mlx.core as mx
import torch
from mlx_lm.utils import load_model
from transformers import Phi3Config, Phi3ForCausalLM

ORIGINAL, LONG = 32, [1.0 + at / 2 for at in range(16)]


def build(short):
    """Save a Phi-3 with these short factors, and return it with its folder."""
    torch.manual_seed(0)
    rope = {
        "rope_type": "longrope", "short_factor": short, "long_factor": LONG, "rope_theta": 10000.0,
        "original_max_position_embeddings": ORIGINAL, "partial_rotary_factor": 1.0,
    }
    config = Phi3Config(
        vocab_size=64, hidden_size=128, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=256,
        original_max_position_embeddings=ORIGINAL, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        initializer_range=0.4, rope_parameters=rope,
    )
    model = Phi3ForCausalLM(config).eval()
    folder = Path(f"model-{short[-1]:g}")
    model.save_pretrained(folder)
    # mlx-lm reads the older names.
    path = folder / "config.json"
    scaling = {"type": "longrope", "short_factor": short, "long_factor": LONG,
               "original_max_position_embeddings": ORIGINAL}
    older = {"rope_theta": 10000.0, "rope_scaling": scaling, "partial_rotary_factor": 1.0}
    path.write_text(json.dumps(json.loads(path.read_text()) | older))
    return model, folder


def difference(model, folder, length):
    """Return the largest difference of log-probabilities for a text of this length."""
    ids = [3 + (7 * at) % 60 for at in range(length)]
    with torch.no_grad():
        ours = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    there, _ = load_model(folder)
    logits = there(mx.array([ids]))[0]
    theirs = torch.tensor((logits - mx.logsumexp(logits, axis=-1, keepdims=True)).tolist())
    return float((ours - theirs).abs().max())


two, one = build([1.0] * 16), build(LONG)
short, same, long = difference(*two, 20), difference(*one, 20), difference(*two, 60)
print(f"20 tokens, original length {ORIGINAL}: {short:.2g}; "
      f"with the short factors set to the long ones: {same:.2g}")
print(f"60 tokens, original length {ORIGINAL}: {long:.2g}")
is_so = short > 0.1 and same < 1e-3 and long < 1e-3
print("the behavior is as described" if is_so else "the behavior has changed")
sys.exit(0 if is_so else 1)
PYTHON
