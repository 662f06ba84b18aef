#!/usr/bin/env bash
# moto's state machines make a list of what a JSONPath finds below an index: `$.a[0].b` is not `$.a[0]`'s b.
#
# Packages: moto 5.2.5 with its extra stepfunctions, boto3 1.44.5.
# Guess: a path without wildcard, slice or filter names one node, and yields that node's value. So say the Amazon States
# Language ("Paths") and the developer guide's sample of Bedrock, which reads `$.result_one.Body.generations[0].text`.
# Behavior: `$.results[0]` yields the object, `$.results[0].text` a list of one text, and `$.results[0].text.en` (one
# name further) the text again: moto takes the index before the last name for a filter's.
# Why it matters: nothing fails. An answer of Bedrock goes on as ["..."] into the next prompt, a States.Format or a
# Choice, and a machine that was made to work here (with `[0]` once more) fails at AWS.
# Way out: read the object by one state and its name by the next, or patch moto's `extract_json` for definite paths.
# Seen:
#   $.results[0]            {"text": {"en": "Lyon"}}
#   $.results[0].text       [{"en": "Lyon"}]
#   $.results[0].text.en    "Lyon"
# Exit status: 1 when that has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip --disable-pip-version-check install --quiet 'moto[stepfunctions]==5.2.5' boto3==1.44.5
cd "$folder"
cat > try.py <<'PYTHON'
import json
import sys
import time

import boto3
from moto import mock_aws

EXPECTED = {
    "$.results[0]": {"text": {"en": "Lyon"}},
    "$.results[0].text": [{"en": "Lyon"}],
    "$.results[0].text.en": "Lyon",
}
ROLE = "arn:aws:iam::123456789012:role/any"
same = True
with mock_aws(config={"stepfunctions": {"execute_state_machine": True}}):
    client = boto3.client(
        "stepfunctions", region_name="us-east-1", aws_access_key_id="any", aws_secret_access_key="any"
    )
    for number, (path, expected) in enumerate(EXPECTED.items()):
        state = {"Type": "Pass", "Parameters": {"value.$": path}, "End": True}
        definition = json.dumps({"StartAt": "Only", "States": {"Only": state}})
        machine = client.create_state_machine(name=f"m{number}", definition=definition, roleArn=ROLE)
        start = client.start_execution(
            stateMachineArn=machine["stateMachineArn"],
            input=json.dumps({"results": [{"text": {"en": "Lyon"}}]}),
        )
        while True:
            found = client.describe_execution(executionArn=start["executionArn"])
            if found["status"] != "RUNNING":
                break
            time.sleep(0.1)
        value = json.loads(found["output"])["value"]
        print(f"{path:24}{json.dumps(value)}")
        same = same and value == expected
print("as described" if same else "changed")
sys.exit(not same)
PYTHON
"$folder/env/bin/python" -W ignore try.py 2> log || { cat log >&2; exit 1; }
