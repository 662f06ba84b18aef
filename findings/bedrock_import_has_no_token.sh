#!/usr/bin/env bash
# botocore 1.44.5 generates a clientRequestToken for every Bedrock operation that takes one, except model import.
#
# Guess: botocore generates a clientRequestToken for every Bedrock create operation that has that member, so
#   that its own retries (and a caller's, after a timeout) never create two.
# Behavior: the member has the idempotency trait in CreateModelCustomizationJob, CreateModelInvocationJob,
#   CreateProvisionedModelThroughput, CreateCustomModelDeployment and CreateModelCopyJob, and lacks it in
#   CreateModelImportJob: its request is sent without a token, and a retry is another import (or, since
#   the job name is taken by then, an error although the import runs). Pass a token explicitly.
# Output seen:
#   CreateCustomModelDeployment: token
#   CreateModelCopyJob: token
#   CreateModelCustomizationJob: token
#   CreateModelImportJob: none
#   CreateModelInvocationJob: token
#   CreateProvisionedModelThroughput: token
# Exit status: 1 when that has changed.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "botocore==1.44.5"

cat > "$folder/tokens.py" <<'PYTHON'
"""Send each request to nowhere, and tell whether its body has a token."""

import json

import botocore.session
from botocore.awsrequest import AWSResponse

ROLE = "arn:aws:iam::123456789012:role/bedrock"
MODEL = "arn:aws:bedrock:us-east-1:123456789012:custom-model/amazon.nova-lite-v1:0:300k/abcdefghijkl"
REQUESTS = {
    "CreateCustomModelDeployment": {"modelDeploymentName": "one", "modelArn": MODEL},
    "CreateModelCopyJob": {"sourceModelArn": MODEL, "targetModelName": "one"},
    "CreateModelCustomizationJob": {
        "jobName": "one",
        "customModelName": "one",
        "roleArn": ROLE,
        "baseModelIdentifier": "amazon.nova-lite-v1:0:300k",
        "trainingDataConfig": {"s3Uri": "s3://bucket/train.jsonl"},
        "outputDataConfig": {"s3Uri": "s3://bucket/out"},
    },
    "CreateModelImportJob": {
        "jobName": "one",
        "importedModelName": "one",
        "roleArn": ROLE,
        "modelDataSource": {"s3DataSource": {"s3Uri": "s3://bucket/model/"}},
    },
    "CreateModelInvocationJob": {
        "jobName": "one",
        "roleArn": ROLE,
        "modelId": MODEL,
        "inputDataConfig": {"s3InputDataConfig": {"s3Uri": "s3://bucket/in.jsonl"}},
        "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://bucket/out/"}},
    },
    "CreateProvisionedModelThroughput": {
        "provisionedModelName": "one",
        "modelId": MODEL,
        "modelUnits": 1,
    },
}


class Empty:
    """The body of an answer that nobody has sent."""

    def stream(self, *args, **kwargs):
        yield b"{}"


session = botocore.session.get_session()
client = session.create_client(
    "bedrock", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
)
sent = []


def answer(request, **_):
    sent.append(json.loads(request.body))
    return AWSResponse(request.url, 201, {"content-type": "application/json"}, Empty())


client.meta.events.register("before-send.bedrock", answer)
for operation, parameters in REQUESTS.items():
    client._make_api_call(operation, parameters)
    print(f"{operation}: {'token' if sent[-1].get('clientRequestToken') else 'none'}")
PYTHON

seen=$("$folder/venv/bin/python" "$folder/tokens.py")
echo "$seen"
[ "$(grep -c ': token$' <<< "$seen")" = 5 ] && grep -qx 'CreateModelImportJob: none' <<< "$seen"
