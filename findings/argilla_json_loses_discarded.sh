#!/usr/bin/env bash
# argilla's to_json exports discarded answers and drafts as if they had been given.
#
# Packages: argilla 2.8.0, datasets 5.2.0, requests 2.34.2 (which it imports and does not ask for).
# Guess: an export says of a response what the rows of to_list(flatten=True) say: submitted, draft or discarded; or it
# leaves out what was discarded.
# Behavior: to_json (and Dataset.to_disk, which writes records.json with it) keeps a response's value and its user, not
# its status. The three are alike, byte for byte but for the record's id. Read back with from_json, each has the status
# None. The rows have it, under `QUESTION.responses.status`.
# Why it matters: an annotator discards what must not be learned; who trains on records.json learns it. Only the
# record's own status is left: in one that is "completed", somebody else may still have discarded theirs.
# Way out: export with records.to_list(flatten=True) or to_datasets(), and keep what has the status "submitted".
# Seen:
#   submitted   to_json: {'value': 'billing', 'user_id': '...'}   read back: None   rows: submitted
#   draft       to_json: {'value': 'billing', 'user_id': '...'}   read back: None   rows: draft
#   discarded   to_json: {'value': 'billing', 'user_id': '...'}   read back: None   rows: discarded
# Exit status: 1 when that has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip --disable-pip-version-check install --quiet argilla==2.8.0 datasets==5.2.0 requests==2.34.2
cd "$folder"
cat > try.py <<'PYTHON'
import json
import sys
import uuid

import argilla
from argilla.records._io import GenericIO, JsonIO

USER = uuid.UUID(int=1)
STATES = ["submitted", "draft", "discarded"]
records = [
    argilla.Record(
        id=state,
        fields={"text": "I paid twice"},
        responses=[argilla.Response("label", "billing", user_id=USER, status=state)],
    )
    for state in STATES
]
JsonIO.to_json(records, "records.json")
with open("records.json") as file:
    exported = [record["responses"]["label"][0] for record in json.load(file)]
read_back = [record.responses["label"][0].status for record in JsonIO._records_from_json("records.json")]
rows = [row["label.responses.status"][0] for row in GenericIO.to_list(records, flatten=True)]
for state, response, status, row in zip(STATES, exported, read_back, rows, strict=True):
    shown = {**response, "user_id": "..."}
    print(f"{state:12}to_json: {shown}   read back: {status}   rows: {row}")
same = all(response == exported[0] and "status" not in response for response in exported)
same = same and read_back == [None] * 3 and rows == STATES
print("as described" if same else "changed")
sys.exit(not same)
PYTHON
HF_HUB_OFFLINE=1 "$folder/env/bin/python" -W ignore try.py 2> log || { cat log >&2; exit 1; }
