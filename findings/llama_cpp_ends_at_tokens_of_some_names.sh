#!/usr/bin/env bash
# llama.cpp ends an answer at 23 tokens by their names, file separators among them, though the file names one end.
#
# Versions: xllamacpp 2026.10.11549 (llama.cpp's server as a Python package), gguf 0.19.0, numpy
# (Python 3.10 or later).
#
# A GGUF file names its end tokens by id: tokenizer.ggml.eos_token_id, eot_token_id, eom_token_id.
#
# Guess: an answer ends at these, and at most at the well-known ends of chat turns besides; a token
# of padding or between files is a token like any other, as it is in transformers, where
# generation_config.json alone says what ends an answer.
#
# Behavior: of 48 special tokens that models have, each sampled once with </s> as the file's only
# end, 23 end the answer. Among them are <|repo_name|> and <|file_sep|>, which the models that have
# them write between files, and one of four names of padding. <|end|> is none here, since it is
# taken from the ends where <|return|>, <|call|>, <|calls|> and <|flush|> are tokens too; without
# those it is one. So what ends an answer depends on the names of tokens that are not in it.
#
# Way out: for a model that writes such tokens on purpose, give the token another name in the file;
# and compare whole answers, not only probabilities, before a file is trusted.
#
# Seen:
#   23 of 48 end an answer
#   among them: <|endoftext|> <|repo_name|> <|file_sep|> <|tool_response>, 1 of 4 of padding
#   <|end|> beside four others of its kind: no end; without them: an end
#   the behavior is as described
#
# Exit status: 0 while the behavior is this, 1 when it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet xllamacpp==2026.10.11549 gguf==0.19.0 numpy
cd "$work"
cat > names.txt <<'E'
<|eot_id|> <|im_end|> <|end|> <|return|> <|call|> <|calls|> <|flush|> <end_of_turn> <turn|>
<|endoftext|> <|eom_id|> <EOT> _<EOT> [EOT] [EOS] <eos> <|end_of_text|> <end_of_utterance>
<｜end▁of▁sentence｜> <|repo_name|> <|file_sep|> <|fim_pad|> [PAD] <PAD> <fim_pad> <|tool_response>
[e~[ <|im_sep|> <|endofprompt|> <|end_of_turn|> <|endofturn|> <|END_OF_TURN_TOKEN|> <|user|>
<|assistant_end|> <|eos|> <eod> <|eod|> <|EOT|> <|stop|> <end> <|channel|> <|message_end|>
<|end_of_msg|> <|role_end|> <seed:eos> <[EOS]> <endofassistant> <|endofassistant|>
E
cat > write.py <<'E'
import sys

import gguf
import numpy as np

path, left_out = sys.argv[1], sys.argv[2:]
names = [name for name in open("names.txt", encoding="utf-8").read().split() if name not in left_out]
tokens = ["<s>", "</s>", *map(chr, range(33, 127)), "\u0120", "\u010a", *names]
kinds = [3, 3, *[1] * 96, *[3] * len(names)]
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
import urllib.request

import gguf
import xllamacpp

names = gguf.GGUFReader(sys.argv[1]).fields["tokenizer.ggml.tokens"].contents()
settings = xllamacpp.CommonParams()
settings.model.path = sys.argv[1]
settings.n_ctx, settings.n_parallel, settings.port, settings.warmup = 512, 1, 0, False
server = xllamacpp.Server(settings)
ends = []
for token in range(98, len(names)):
    body = {"prompt": [5, 6, 7], "n_predict": 3, "temperature": 0, "logit_bias": [[token, 1e9]]}
    request = urllib.request.Request(
        server.listening_address + "/completion",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    if json.loads(urllib.request.urlopen(request).read())["stop_type"] == "eos":
        ends.append(names[token])
print(json.dumps({"ends": ends, "of": len(names) - 98}))
sys.stdout.flush()
os._exit(0)
E
"$work/venv/bin/python" write.py all.gguf
"$work/venv/bin/python" run.py all.gguf 2> all.log | tail -1 > all.json
"$work/venv/bin/python" write.py less.gguf '<|return|>' '<|call|>' '<|calls|>' '<|flush|>'
"$work/venv/bin/python" run.py less.gguf 2> less.log | tail -1 > less.json
python3 - <<'E'
import json
import sys

everything, less = json.load(open("all.json")), json.load(open("less.json"))
ends = everything["ends"]
surprising = ["<|endoftext|>", "<|repo_name|>", "<|file_sep|>", "<|tool_response>"]
padding = {"<|fim_pad|>", "<fim_pad>", "[PAD]", "<PAD>"} & set(ends)
print(f"{len(ends)} of {everything['of']} end an answer")
found = " ".join(name for name in surprising if name in ends)
print(f"among them: {found}, {len(padding)} of 4 of padding")
without = "an end" if "<|end|>" in less["ends"] else "no end"
beside = "an end" if "<|end|>" in ends else "no end"
print(f"<|end|> beside four others of its kind: {beside}; without them: {without}")
right = (len(ends), everything["of"], beside, without) == (23, 48, "no end", "an end")
if right and len(padding) == 1 and set(surprising) <= set(ends):
    print("the behavior is as described")
else:
    print("the behavior has changed:", *ends)
    sys.exit(1)
E
