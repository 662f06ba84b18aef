#!/usr/bin/env bash
# A tokenizer that is saved after training truncates and pads every text, for all readers except transformers.
#
# Packages: transformers 5.23.0, tokenizers 0.23.3 (the library that both transformers and the Rust servers read the
# file with).
# Guess: tokenizer(texts, truncation=True, max_length=..., padding=...) are arguments of that call; save_pretrained
# writes the tokenizer as it was loaded.
# Behavior: the call sets truncation and padding on the backend, and save_pretrained writes them into tokenizer.json:
# what the last call before the save happened to ask for. tokenizers.Tokenizer.from_file applies both to every text
# from then on, with no argument and no warning: a prompt longer than the training's max_length loses its end (with
# truncation_side left, its beginning), a shorter one ends in pad tokens. AutoTokenizer sets both again at each call,
# so a check in transformers shows nothing; nor does a tokenizer that was loaded and saved without a call.
# (huggingface/transformers issue 24441; vllm-project/llm-compressor pull request 2917, 2026: published checkpoints
# have it.)
# Why it matters: a trainer saves the tokenizer that it tokenized with beside the weights; a server, a token counter
# or a data tool that reads tokenizer.json itself then answers another prompt than the one that was sent.
# Way out: save a freshly loaded tokenizer, or call no_truncation() and no_padding() on backend_tokenizer before.
# Seen (tokens of a text of ten words, read by tokenizers and by transformers; the same of a text of two):
#   none                                -                            10       10        2        2
#   truncation to 6                     truncation                    6       10        2        2
#   truncation to 6, padded to 6        truncation, padding           6       10        6        2
#   padded to 8                         padding                      10       10        8        2
#   truncation to 6, then plain         -                            10       10        2        2
# Exit status: 1 when that has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip --disable-pip-version-check install --quiet transformers==5.23.0 tokenizers==0.23.3
cd "$folder"
cat > try.py <<'PYTHON'
import json
import pathlib
import sys

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

WORDS = "[PAD] [UNK] one two three four five six seven eight nine ten".split()
LONG, SHORT = " ".join(WORDS[2:]), "one two"
backend = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
backend.pre_tokenizer = pre_tokenizers.Whitespace()
PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]").save_pretrained("base")

CALLS = {
    "none": [],
    "truncation to 6": [{"truncation": True, "max_length": 6}],
    "truncation to 6, padded to 6": [{"truncation": True, "max_length": 6, "padding": "max_length"}],
    "padded to 8": [{"max_length": 8, "padding": "max_length"}],
    "truncation to 6, then plain": [{"truncation": True, "max_length": 6}, {}],
}
EXPECTED = {
    "none": ([], 10, 10, 2, 2),
    "truncation to 6": (["truncation"], 6, 10, 2, 2),
    "truncation to 6, padded to 6": (["truncation", "padding"], 6, 10, 6, 2),
    "padded to 8": (["padding"], 10, 10, 8, 2),
    "truncation to 6, then plain": ([], 10, 10, 2, 2),
}
found = {}
for name, calls in CALLS.items():
    tokenizer = AutoTokenizer.from_pretrained("base")
    for arguments in calls:
        tokenizer([LONG, SHORT], **arguments)
    tokenizer.save_pretrained("trained")
    document = json.loads(pathlib.Path("trained/tokenizer.json").read_text())
    read = Tokenizer.from_file("trained/tokenizer.json")
    again = AutoTokenizer.from_pretrained("trained")
    lengths = [len(ids) for text in (LONG, SHORT) for ids in (read.encode(text).ids, again(text).input_ids)]
    found[name] = ([key for key in ("truncation", "padding") if document[key]], *lengths)
    print(f"{name:36}{', '.join(found[name][0]) or '-':22}", *(f"{length:8}" for length in lengths))
same = found == EXPECTED
print("as described" if same else "changed")
sys.exit(not same)
PYTHON
HF_HUB_OFFLINE=1 "$folder/env/bin/python" -W ignore try.py 2> log || { cat log >&2; exit 1; }
