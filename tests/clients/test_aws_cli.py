"""The AWS CLI: `cloudformation deploy` again and again, and `stepfunctions`.

`deploy` polls the end of a stack every 30 seconds, whatever the stack takes: that is why this is
no part of the suite.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import CLOUDFT_PYTHON, MAX_TOKENS, NOVA, PROMPT, ROLE, Expected

TEMPLATE = """
Parameters: {Days: {Type: Number, Default: 7}}
Resources:
  Box: {Type: AWS::S3::Bucket, Properties: {Tags: [{Key: days, Value: !Ref Days}]}}
Outputs: {Name: {Value: !Ref Box}}
"""
CONVERSE = {
    "ModelId": NOVA,
    "Messages": [{"Role": "user", "Content": [{"Text.$": "$.prompt"}]}],
    "InferenceConfig": {"MaxTokens": MAX_TOKENS},
}
INVOKE = {
    "ModelId": NOVA,
    "Body": {
        "messages": [{"role": "user", "content": [{"text.$": "$.prompt"}]}],
        "inferenceConfig": {"maxTokens": MAX_TOKENS},
    },
}


pytestmark = pytest.mark.usefixtures("url")


def aws(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the AWS CLI, which is in the endpoint's environment: it pins a botocore of its own."""
    settings = os.environ | {"AWS_DEFAULT_OUTPUT": "json"}
    program = (CLOUDFT_PYTHON, "-m", "awscli")
    return subprocess.run(
        [*program, *command], env=settings, capture_output=True, text=True, check=False
    )


def output(*command: str) -> Any:
    """Run it, and return what it prints. Raises AssertionError with its words if it fails."""
    done = aws(*command)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_stack_is_deployed_again_with_and_without_a_change(tmp_path: Path) -> None:
    template = tmp_path / "box.yaml"
    template.write_text(TEMPLATE)
    deploy = ("cloudformation", "deploy", "--stack-name", "cli", "--template-file", template)

    def stack() -> Any:
        return output("cloudformation", "describe-stacks", "--stack-name", "cli")["Stacks"][0]

    first = aws(*deploy)
    assert first.returncode == 0, first.stderr
    assert "Successfully created/updated stack - cli" in first.stdout
    created = stack()
    again = aws(*deploy, "--no-fail-on-empty-changeset")
    assert again.returncode == 0, again.stderr
    assert "No changes to deploy. Stack cli is up to date" in again.stdout
    assert aws(*deploy, "--fail-on-empty-changeset").returncode
    assert stack() == created
    changed = aws(*deploy, "--parameter-overrides", "Days=8")
    assert changed.returncode == 0, changed.stderr
    updated = stack()
    assert (created["StackStatus"], updated["StackStatus"]) == (
        "CREATE_COMPLETE",
        "UPDATE_COMPLETE",
    )
    assert created["Outputs"] == updated["Outputs"]  # the bucket was tagged, not replaced
    bucket = created["Outputs"][0]["OutputValue"]
    tags = output("s3api", "get-bucket-tagging", "--bucket", bucket)
    assert {"Key": "days", "Value": "8"} in tags["TagSet"]


@pytest.mark.parametrize(
    ("resource", "parameters", "path"),
    [
        ("bedrock:invokeModel", INVOKE, "$.Body.output.message.content[0].text"),
        ("aws-sdk:bedrockruntime:converse", CONVERSE, "$.Output.Message.Content[0].Text"),
    ],
)
def test_a_state_machine_calls_the_model(
    expected: Expected, resource: str, parameters: object, path: str
) -> None:
    task = {
        "Type": "Task",
        "Resource": f"arn:aws:states:::{resource}",
        "Parameters": parameters,
        "ResultSelector": {"text.$": path},
        "End": True,
    }
    definition = json.dumps({"StartAt": "Ask", "States": {"Ask": task}})
    name = resource.replace(":", "-")
    create = ("create-state-machine", "--name", name, "--role-arn", ROLE)
    machine = output("stepfunctions", *create, "--definition", definition)["stateMachineArn"]
    start = ("start-execution", "--state-machine-arn", machine)
    given = json.dumps({"prompt": PROMPT})
    execution = output("stepfunctions", *start, "--input", given)["executionArn"]
    describe = ("stepfunctions", "describe-execution", "--execution-arn", execution)
    while (found := output(*describe))["status"] == "RUNNING":
        time.sleep(0.2)
    assert found["status"] == "SUCCEEDED", found
    assert json.loads(found["output"]) == {"text": expected.text}


def test_a_definition_that_is_none_is_refused() -> None:
    create = ("create-state-machine", "--name", "none", "--role-arn", ROLE)
    done = aws("stepfunctions", *create, "--definition", '{"StartAt": "Ask"}')
    assert done.returncode and "(InvalidDefinition)" in done.stderr
