#!/usr/bin/env bash
# llama.cpp takes a repetition penalty "over the whole context" from a GGUF file, shows it, and does not apply it.
#
# Versions: xllamacpp 2026.10.11549 (llama.cpp's server as a Python package), gguf 0.19.0, numpy
# (Python 3.10 or later).
#
# A GGUF file can name how answers are sampled (general.sampling.*). -1 as the number of tokens
# among which repetitions count has long meant "the context size" in llama.cpp, and still does in
# Ollama's repeat_last_n; the gguf library writes it as a signed number.
#
# Guess: with penalty_repeat 5 and penalty_last_n -1 the penalty counts all tokens, as
# repetition_penalty in transformers does, and as the context's length instead of -1 does.
#
# Behavior: the server's properties show repeat_penalty 5 and repeat_last_n -1, and answers are
# those without a penalty. With the context's length they are others. A request that says -1 is
# refused with status 400; the file's -1 is refused nowhere.
#
# Way out: write the length of the context.
#
# Seen:
#   the file says -1: shown as 5 and -1; the answer without a penalty
#   the file says 512: shown as 5 and 512; another answer
#   a request says -1: status 400
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

path, penalty, last = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
tokens = ["<s>", "</s>", *map(chr, range(33, 127)), "\u0120", "\u010a"]
kinds = [3, 3, *[1] * 96]
numbers = np.random.default_rng(0)
writer = gguf.GGUFWriter(path, "llama")
writer.add_context_length(512)
writer.add_embedding_length(64)
writer.add_block_count(1)
writer.add_feed_forward_length(64)
writer.add_head_count(2)
writer.add_head_count_kv(2)
writer.add_layer_norm_rms_eps(1e-6)
writer.add_rope_freq_base(10000.0)
writer.add_vocab_size(len(tokens))
writer.add_tokenizer_model("gpt2")
writer.add_tokenizer_pre("gpt-2")
writer.add_token_list(tokens)
writer.add_token_types(kinds)
writer.add_token_merges(["a b"])
writer.add_bos_token_id(0)
writer.add_eos_token_id(1)
writer.add_sampling_temp(0.0)
writer.add_sampling_penalty_repeat(penalty)
writer.add_sampling_penalty_last_n(last)


def add(name, *shape):
    writer.add_tensor(name, numbers.normal(0, 0.3, shape).astype(np.float32))


add("token_embd.weight", len(tokens), 64)
add("output.weight", len(tokens), 64)
for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
    add(f"blk.0.{part}.weight", 64, 64)
for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
    writer.add_tensor(f"{name}.weight", np.ones(64, np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
E
cat > run.py <<'E'
import json
import os
import sys
import urllib.error
import urllib.request

import xllamacpp

settings = xllamacpp.CommonParams()
settings.model.path = sys.argv[1]
settings.n_ctx, settings.n_parallel, settings.port, settings.warmup = 512, 1, 0, False
server = xllamacpp.Server(settings)


def send(path, body=None):
    request = urllib.request.Request(
        server.listening_address + path,
        None if body is None else json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    try:
        return json.loads(urllib.request.urlopen(request).read())
    except urllib.error.HTTPError as error:
        return {"status": error.code}


body = {"prompt": list(range(2, 90)), "n_predict": 12, "return_tokens": True}
shown = send("/props")["default_generation_settings"]["params"]
found = {
    "penalty": shown["repeat_penalty"],
    "last": shown["repeat_last_n"],
    "answer": send("/completion", body)["tokens"],
    "request": send("/completion", {**body, "repeat_last_n": -1}).get("status"),
}
print(json.dumps(found))
sys.stdout.flush()
os._exit(0)
E
for name in "none 1 64" "minus 5 -1" "length 5 512"; do
  set -- $name
  "$work/venv/bin/python" write.py "$1.gguf" "$2" "$3"
  "$work/venv/bin/python" run.py "$1.gguf" 2> "$1.log" | tail -1 > "$1.json"
done
python3 - <<'E'
import json
import sys

none, minus, length = (json.load(open(f"{name}.json")) for name in ("none", "minus", "length"))


def show(found):
    same = found["answer"] == none["answer"]
    return (
        f"shown as {found['penalty']:g} and {found['last']};"
        f" {'the answer without a penalty' if same else 'another answer'}"
    )


print("the file says -1:", show(minus))
print("the file says 512:", show(length))
print("a request says -1: status", minus["request"])
right = (minus["penalty"], minus["last"], minus["request"]) == (5, -1, 400)
if right and minus["answer"] == none["answer"] != length["answer"]:
    print("the behavior is as described")
else:
    print("the behavior has changed")
    sys.exit(1)
E
