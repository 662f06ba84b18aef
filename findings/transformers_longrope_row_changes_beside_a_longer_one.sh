#!/usr/bin/env bash
# With longrope, a short row's logits depend on the length of the row beside it in the batch.
#
# Versions: transformers 5.24.0, torch 2.13.0 (Python 3.10 or later).
#
# longrope (Phi-3 and Phi-4 mini, 128k; here in a small Llama, which takes every rope type) has two sets of angles: short_factor for sequences up to
# original_max_position_embeddings, long_factor above. A batch is two rows, padded on the right with
# an attention mask; or the two rows one after another with position_ids that begin anew
# (padding-free). Training, evaluation and batched generation all do one of the two.
#
# Guess: a causal model with a correct mask gives each row the logits that it has alone, with
# every rope_type that transformers has; the set of angles is chosen for each row.
#
# Behavior: the set is chosen once for the whole batch, from the largest position in it. So a row
# of 12 tokens has the long angles beside a row of 70, and the short ones beside a row of 20 or
# alone. Of the six rope types, longrope alone does so below max_position_embeddings (above it was
# not run). Whoever trains in batches of mixed length trains short rows with angles that they never
# get alone.
#
# Way out: batches whose rows are all on one side of the limit, or angles computed for each row
# (as cloudft's packed path does).
#
# Seen:
#   default   12 tokens beside 20: 0.0000  beside 70: 0.0000  packed with 70: 0.0000
#   linear    12 tokens beside 20: 0.0000  beside 70: 0.0000  packed with 70: 0.0000
#   dynamic   12 tokens beside 20: 0.0000  beside 70: 0.0000  packed with 70: 0.0000
#   yarn      12 tokens beside 20: 0.0000  beside 70: 0.0000  packed with 70: 0.0000
#   llama3    12 tokens beside 20: 0.0000  beside 70: 0.0000  packed with 70: 0.0000
#   longrope  12 tokens beside 20: 0.0000  beside 70: 8.3437  packed with 70: 8.3437
#   the behavior is as described
#
# Exit status: 0 while the behavior is this, 1 when it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0
cat > "$work/compare.py" <<'P'
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

transformers.utils.logging.set_verbosity_error()
ORIGINAL = {"original_max_position_embeddings": 40}
ROPES = {
    "default": {},
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "yarn": {"factor": 4.0} | ORIGINAL,
    "llama3": {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0} | ORIGINAL,
    "longrope": {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4} | ORIGINAL,
}


def build(name):
    """Return a random model with positions of this kind."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=160,
        initializer_range=0.3,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        rope_parameters={"rope_type": name, "rope_theta": 10000.0} | ROPES[name],
    )
    return LlamaForCausalLM(config).eval()


@torch.no_grad()
def differences(model):
    """Return by how much a logit of the short row differs from those that it has alone."""
    row = torch.randint(8, 64, (1, 12))
    alone = model(row, use_cache=False).logits
    found = []
    for length in (20, 70):
        ids, mask = torch.randint(8, 64, (2, length)), torch.ones(2, length, dtype=torch.long)
        ids[0, :12], mask[0, 12:] = row[0], 0
        beside = model(ids, attention_mask=mask, use_cache=False).logits[:1, :12]
        found.append(float((beside - alone).abs().max()))
    rows = torch.cat([row, torch.randint(8, 64, (1, 70))], 1)
    positions = torch.cat([torch.arange(12), torch.arange(70)])[None]
    packed = model(rows, position_ids=positions, use_cache=False).logits[:, :12]
    return [*found, float((packed - alone).abs().max())]


same = True
for name in ROPES:
    short, long, packed = differences(build(name))
    print(
        f"{name:9} 12 tokens beside 20: {short:.4f}  beside 70: {long:.4f}"
        f"  packed with 70: {packed:.4f}"
    )
    changes = [short > 0.01, long > 0.01, packed > 0.01]
    same = same and changes == [False, name == "longrope", name == "longrope"]
raise SystemExit(0 if same else 1)
P
HF_HUB_OFFLINE=1 "$work/venv/bin/python" "$work/compare.py"
echo "the behavior is as described"
