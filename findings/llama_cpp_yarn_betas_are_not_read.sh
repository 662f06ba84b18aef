#!/usr/bin/env bash
# llama.cpp ignores the betas of YaRN that a GGUF file names, without a word.
#
# Versions: xllamacpp 2026.10.11549 (llama.cpp's server as a Python package), gguf 0.19.0, numpy
# (Python 3.10 or later).
#
# The gguf library writes beta_fast and beta_slow of a model's rope settings as
# `ARCH.rope.scaling.yarn_beta_fast` and `..._slow` (`GGUFWriter.add_rope_scaling_yarn_beta_fast`),
# and llama.cpp has both names among its keys.
#
# Guess: a file with beta_fast 16 or beta_slow 2 is computed with those bounds, as transformers
# computes such a model; its probabilities differ from those with the paper's 32 and 1.
#
# Behavior: the probabilities are equal to the last digit, whatever the two keys say; the file is
# loaded without a warning. Another scaling factor, in the same file, does change them.
#
# Way out: in architectures that read `rope_freqs.weight` (llama, granite), write what divides each
# frequency as that tensor instead; elsewhere refuse such a model.
#
# Seen:
#   beta_fast 16: largest difference of a log-probability 0
#   beta_slow 2: largest difference of a log-probability 0
#   factor 2: largest difference of a log-probability 0.78
#   the behavior is as described
#
# Exit status: 0 while the behavior is this, 1 when it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet xllamacpp==2026.10.11549 gguf==0.19.0 numpy
cd "$work"
cat > write.py <<'E'
import sys

import gguf
import numpy as np

path, factor, fast, slow = sys.argv[1], *map(float, sys.argv[2:])
numbers = np.random.default_rng(0)
writer = gguf.GGUFWriter(path, "llama")
writer.add_context_length(512)
writer.add_embedding_length(64)
writer.add_block_count(2)
writer.add_feed_forward_length(64)
writer.add_head_count(2)
writer.add_head_count_kv(2)
writer.add_layer_norm_rms_eps(1e-6)
writer.add_rope_freq_base(10000.0)
writer.add_rope_dimension_count(32)
writer.add_vocab_size(98)
writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
writer.add_rope_scaling_factor(factor)
writer.add_rope_scaling_orig_ctx_len(4096)
writer.add_rope_scaling_yarn_beta_fast(fast)
writer.add_rope_scaling_yarn_beta_slow(slow)
tokens = ["<s>", "</s>", *map(chr, range(33, 127)), "\u0120", "\u010a"]
writer.add_tokenizer_model("gpt2")
writer.add_tokenizer_pre("gpt-2")
writer.add_token_list(tokens)
writer.add_token_types([3, 3, *[1] * (len(tokens) - 2)])
writer.add_token_merges(["a b"])
writer.add_bos_token_id(0)
writer.add_eos_token_id(1)


def add(name, *shape):
    writer.add_tensor(name, numbers.normal(0, 0.3, shape).astype(np.float32))


add("token_embd.weight", 98, 64)
add("output.weight", 98, 64)
writer.add_tensor("output_norm.weight", np.ones(64, np.float32))
for at in range(2):
    for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        add(f"blk.{at}.{part}.weight", 64, 64)
    for part in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.{at}.{part}.weight", np.ones(64, np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
E
cat > run.py <<'E'
import json
import os
import sys
import urllib.request

import xllamacpp

settings = xllamacpp.CommonParams()
settings.model.path = sys.argv[1]
settings.n_ctx, settings.n_parallel, settings.port, settings.warmup = 512, 1, 0, False
server = xllamacpp.Server(settings)
body = {"prompt": list(range(2, 90)), "n_predict": 1, "n_probs": 98, "temperature": 0}
request = urllib.request.Request(
    server.listening_address + "/completion",
    json.dumps(body).encode(),
    {"content-type": "application/json"},
)
[step] = json.loads(urllib.request.urlopen(request).read())["completion_probabilities"]
print(json.dumps({str(t["id"]): t["logprob"] for t in step["top_logprobs"]}))
sys.stdout.flush()
os._exit(0)
E
for name in "paper 4 32 1" "fast 4 16 1" "slow 4 32 2" "factor 2 32 1"; do
  set -- $name
  "$work/venv/bin/python" write.py "$1.gguf" "$2" "$3" "$4"
  "$work/venv/bin/python" run.py "$1.gguf" 2> "$1.log" | tail -1 > "$1.json"
  if grep -i beta "$1.log"; then echo "the log names the betas"; exit 1; fi
done
python3 - <<'E'
import json
import sys

paper, fast, slow, factor = (
    json.load(open(f"{name}.json")) for name in ("paper", "fast", "slow", "factor")
)


def difference(found):
    return max(abs(paper[token] - found[token]) for token in paper)


print(f"beta_fast 16: largest difference of a log-probability {difference(fast):.2g}")
print(f"beta_slow 2: largest difference of a log-probability {difference(slow):.2g}")
print(f"factor 2: largest difference of a log-probability {difference(factor):.2g}")
if difference(fast) == difference(slow) == 0 and difference(factor) > 0.01:
    print("the behavior is as described")
else:
    print("the behavior has changed")
    sys.exit(1)
E
