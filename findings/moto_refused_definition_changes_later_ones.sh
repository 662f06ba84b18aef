#!/usr/bin/env bash
# moto 5.2.5: a state machine's definition that is refused changes how all later ones are read.
#
# Guess: a definition that CreateStateMachine refuses has no effect on others.
# Seen: once a JSONata definition was refused after its query language was read, valid JSONPath ones are
#   refused as "JSONata to JSONPath", in this process for good: the parser's visitor keeps the query
#   languages of open scopes in a list of its class, and an error leaves its entry there. Threads that
#   parse at the same time share that list, too.
# Way out: give each `Preprocessor` a list of its own, in its __init__.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet "moto[stepfunctions]==5.2.5" "boto3==1.44.5" "antlr4-python3-runtime==4.13.2"
AWS_ACCESS_KEY_ID=testing AWS_SECRET_ACCESS_KEY=testing AWS_DEFAULT_REGION=us-east-1 \
    "$folder/venv/bin/python" - <<'PY'
import json

import boto3
from moto import mock_aws

STATES = {"Only": {"Type": "Pass", "Parameters": {"n": 1}, "End": True}}
JSONPATH = {"QueryLanguage": "JSONPath", "StartAt": "Only", "States": STATES}
MIXED = {"QueryLanguage": "JSONata", "StartAt": "Only", "States": STATES}


def create(name, definition):
    client.create_state_machine(
        name=name, definition=json.dumps(definition), roleArn="arn:aws:iam::123456789012:role/any"
    )


with mock_aws(config={"stepfunctions": {"execute_state_machine": True}}):
    client = boto3.client("stepfunctions")
    create("before", JSONPATH)
    for name, definition in (("mixed", MIXED), ("after", JSONPATH)):
        try:
            create(name, definition)
        except client.exceptions.ClientError as error:
            print(name, error.response["Error"]["Message"][:160])
            if name == "after":
                assert "JSONPath" in str(error)
        else:
            raise SystemExit(f"the definition {name!r} is accepted now")
PY
