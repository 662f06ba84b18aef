#!/usr/bin/env bash
# The task type that every Bedrock evaluation job with a judge needs is not in botocore 1.44.5's enum of task types.
#
# Guess: the enum EvaluationTaskType of botocore's service model has every value that CreateEvaluationJob takes,
#   so a request can be validated against it before it is sent.
# Behavior: the enum is Summarization, Classification, QuestionAndAnswer, Generation, Custom. The Bedrock user guide
#   ("Create a model evaluation job using built-in metrics") has `"taskType": "General"` in both requests with a
#   judge, and the results of such jobs lie below `taskTypes/General`. botocore itself checks no enum: it sends it.
#   Validate the enum with this exception.
# Output seen:
#   enum: Classification, Custom, Generation, QuestionAndAnswer, Summarization
#   sent: General
# Exit status: 1 when that has changed.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "botocore==1.44.5"

cat > "$folder/task_type.py" <<'PYTHON'
"""Print the enum, and the task type in a request that is sent to nowhere."""

import json

import botocore.session
from botocore.awsrequest import AWSResponse


class Empty:
    """The body of an answer that nobody has sent."""

    def stream(self, *args, **kwargs):
        yield b"{}"


session = botocore.session.get_session()
model = session.get_service_model("bedrock")
print("enum:", ", ".join(sorted(model.shape_for("EvaluationTaskType").enum)))
client = session.create_client(
    "bedrock", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
)


def answer(request, **_):
    config = json.loads(request.body)["evaluationConfig"]["automated"]["datasetMetricConfigs"][0]
    print("sent:", config["taskType"])
    return AWSResponse(request.url, 202, {"content-type": "application/json"}, Empty())


client.meta.events.register("before-send.bedrock", answer)
dataset = {"name": "one", "datasetLocation": {"s3Uri": "s3://bucket/one.jsonl"}}
metrics = {"taskType": "General", "dataset": dataset, "metricNames": ["Builtin.Correctness"]}
judge = {"bedrockEvaluatorModels": [{"modelIdentifier": "amazon.nova-pro-v1:0"}]}
client.create_evaluation_job(
    jobName="one",
    roleArn="arn:aws:iam::123456789012:role/bedrock",
    evaluationConfig={
        "automated": {"datasetMetricConfigs": [metrics], "evaluatorModelConfig": judge}
    },
    inferenceConfig={
        "models": [{"precomputedInferenceSource": {"inferenceSourceIdentifier": "one"}}]
    },
    outputDataConfig={"s3Uri": "s3://bucket/out/"},
)
PYTHON

seen=$("$folder/venv/bin/python" "$folder/task_type.py")
echo "$seen"
grep -qx 'enum: Classification, Custom, Generation, QuestionAndAnswer, Summarization' <<< "$seen"
grep -qx 'sent: General' <<< "$seen"
