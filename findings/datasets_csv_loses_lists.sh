#!/usr/bin/env bash
# datasets' to_csv writes lists as numpy prints them: a long chat loses its middle, and no reader gets a list back.
#
# Packages: datasets 5.2.0, pandas 3.1.1, numpy (as it comes with them).
# Guess: to_csv writes a list as Python prints it, or as JSON; what is in the data set is in the file.
# Behavior: rows become a pandas frame whose lists are numpy arrays, and a cell is str(array). That has no commas
# between elements, so neither JSON nor Python reads it, and from 1,001 elements on numpy prints the first three and
# the last three, with "..." between them. Nothing is said. Dataset.from_csv reads the cells back as texts.
# pandas alone, given lists, writes Python's form, whole.
# Why it matters: a chat of many turns, token ids or tags are gone from the one copy that was kept.
# Way out: to_json or to_parquet; json.dumps for the column before to_csv.
# Seen:
#   a chat of 2 messages      [{'role': 'user', 'content': '0'} {'role': 'user', 'content': '1'}]   not JSON, not Python
#   a chat of 1,002 messages  6 of 1002 messages in the file
#   pandas, of lists          1002 of 1002 messages in the file
# Exit status: 1 when that has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip --disable-pip-version-check install --quiet datasets==5.2.0 pandas==3.1.1
cd "$folder"
cat > try.py <<'PYTHON'
import ast
import csv
import json
import sys

import pandas
from datasets import Dataset, disable_progress_bars

disable_progress_bars()
csv.field_size_limit(sys.maxsize)


def chat(count):
    return [{"role": "user", "content": str(number)} for number in range(count)]


def cell(path):
    with open(path, newline="") as file:
        return next(csv.DictReader(file))["messages"]


def can_read(text):
    for read in (json.loads, ast.literal_eval):
        try:
            read(text)
        except (ValueError, SyntaxError):
            continue
        return True
    return False


short, long, own = "short.csv", "long.csv", "pandas.csv"
Dataset.from_dict({"messages": [chat(2)]}).to_csv(short)
Dataset.from_dict({"messages": [chat(1002)]}).to_csv(long)
pandas.DataFrame({"messages": [chat(1002)]}).to_csv(own, index=False)
counts = [cell(path).count("'content'") for path in (long, own)]
print(f"a chat of 2 messages      {cell(short)}   {'readable' if can_read(cell(short)) else 'not JSON, not Python'}")
print(f"a chat of 1,002 messages  {counts[0]} of 1002 messages in the file")
print(f"pandas, of lists          {counts[1]} of 1002 messages in the file")
same = not can_read(cell(short)) and counts == [6, 1002] and can_read(cell(own))
print("as described" if same else "changed")
sys.exit(not same)
PYTHON
HF_HUB_OFFLINE=1 "$folder/env/bin/python" -W ignore try.py 2> log || { cat log >&2; exit 1; }
