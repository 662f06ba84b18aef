"""The endpoint by other clients than boto3: the AWS CLI and the SDK for JavaScript."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from endpoint import BUCKET, ROLE, Endpoint, running_endpoint
from processes import wait_until

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "endpoint"
SETTINGS = ("local.device=cpu", "local.dtype=float32", "local.lora.r=16", "local.lora.alpha=32")
HYPERPARAMETERS = "epochCount=10,batchSize=1,learningRate=0.01,learningRateWarmupSteps=0"
NO_NETWORK = re.compile(r"E(NOTFOUND|AI_AGAIN|CONNREFUSED|CONNRESET|TIMEDOUT|NETUNREACH)|network")


@pytest.fixture(scope="module")
def endpoint(tiny_model: Path) -> Iterator[Endpoint]:
    options = [part for setting in SETTINGS for part in ("--set", setting)]
    with running_endpoint("--stand-in", tiny_model, *options) as endpoint:
        yield endpoint


def environ(endpoint: Endpoint, **more: str) -> dict[str, str]:
    return {**os.environ, **endpoint.environ, "HYPERPARAMETERS": HYPERPARAMETERS, **more}


def run(*command: str | Path, env: Mapping[str, str], cwd: Path) -> str:
    """Run a command that must not fail, and return its output."""
    done = subprocess.run(
        command, env=env, cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def printed_values(output: str, what: str) -> list[str]:
    """Return the rest of each line that begins with `what: `."""
    return re.findall(rf"^{what}: (.*)$", output, re.MULTILINE)


def answers(output: str) -> tuple[str, str]:
    """Return the answers of the base and the tuned model, after a job that must have completed."""
    assert printed_values(output, "job")[-1] == "Completed"
    assert printed_values(output, "throughput") == ["InService"]
    [base], [tuned] = printed_values(output, "base"), printed_values(output, "tuned")
    return json.loads(base), json.loads(tuned)


def assert_nothing_is_left(endpoint: Endpoint) -> None:
    bedrock = endpoint.client("bedrock")
    assert bedrock.list_provisioned_model_throughputs()["provisionedModelSummaries"] == []
    assert bedrock.list_custom_models()["modelSummaries"] == []


def aws_folder() -> str | None:
    """Return the folder of an AWS CLI that works: one whose packages are missing does not."""
    for folder in (str(Path(sys.executable).parent), *os.environ["PATH"].split(os.pathsep)):
        aws = shutil.which("aws", path=folder)
        if aws and subprocess.run([aws, "--version"], capture_output=True).returncode == 0:
            return folder
    return None


def test_the_aws_cli_tunes_serves_and_generates(endpoint: Endpoint, tmp_path: Path) -> None:
    folder = aws_folder()
    if folder is None:
        pytest.skip("the AWS CLI is not installed")
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    env = environ(endpoint, PATH=path, BUCKET="aws-cli", NAME="aws-cli", ROLE="aws-cli")
    base, tuned = answers(run("sh", EXAMPLES / "aws-cli.sh", env=env, cwd=tmp_path))
    assert base != tuned and "Lyon" in tuned
    assert_nothing_is_left(endpoint)


def test_the_aws_cli_with_an_api_key_and_without_a_signature(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    folder = aws_folder()
    if folder is None:
        pytest.skip("the AWS CLI is not installed")
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    where = {"AWS_ENDPOINT_URL": endpoint.url, "AWS_DEFAULT_REGION": "us-east-1", "PATH": path}
    env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    env |= where | {"HOME": str(tmp_path)}
    listing = ("aws", "bedrock", "list-foundation-models", "--output", "json")
    keyed = run(*listing, env=env | {"AWS_BEARER_TOKEN_BEDROCK": "any"}, cwd=tmp_path)
    assert json.loads(keyed)["modelSummaries"]
    for command in (listing, ("aws", "sts", "get-caller-identity")):
        done = subprocess.run(
            [*command, "--no-sign-request"], env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode and "(MissingAuthenticationTokenException)" in done.stderr


def test_the_aws_cli_runs_a_state_machine_that_calls_bedrock(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    folder = aws_folder()
    if folder is None:
        pytest.skip("the AWS CLI is not installed")
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    env = environ(endpoint, PATH=path, AWS_DEFAULT_REGION="us-east-1")
    model, body = "amazon.titan-text-express-v1", {"inputText": "Where is parcel 3?"}
    task = {
        "Type": "Task",
        "Resource": "arn:aws:states:::bedrock:invokeModel",
        "Parameters": {"ModelId": model, "Body": {"inputText.$": "$.inputText"}},
        "ResultSelector": {"text.$": "$.Body.results[0].outputText"},
        "End": True,
    }
    definition = json.dumps({"StartAt": "Ask", "States": {"Ask": task}})

    def aws(*command: str) -> str:
        query = ("--query", command[0], "--output", "text")
        return run("aws", "stepfunctions", *command[1:], *query, env=env, cwd=tmp_path).strip()

    create = ("create-state-machine", "--name", "aws-cli", "--role-arn", ROLE)
    machine = aws("stateMachineArn", *create, "--definition", definition)
    start = ("start-execution", "--state-machine-arn", machine)
    execution = aws("executionArn", *start, "--input", json.dumps(body))
    client = endpoint.client("stepfunctions")
    client = endpoint.client("stepfunctions")

    def end() -> Any:
        found = client.describe_execution(executionArn=execution)
        return None if found["status"] == "RUNNING" else found

    found = wait_until(end, "the execution has ended")
    assert found["status"] == "SUCCEEDED", found
    answer = endpoint.client("bedrock-runtime").invoke_model(modelId=model, body=json.dumps(body))
    [result] = json.load(answer["body"])["results"]
    assert json.loads(found["output"]) == {"text": result["outputText"]}


def test_the_javascript_sdk_tunes_serves_and_generates(endpoint: Endpoint, tmp_path: Path) -> None:
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("Node.js is not installed")
    folder = tmp_path / "node"
    shutil.copytree(EXAMPLES / "node", folder, ignore=shutil.ignore_patterns("node_modules"))
    installed = subprocess.run(
        [
            npm,
            "install",
            "--no-audit",
            "--no-fund",
            "--fetch-retry-mintimeout=500",
            "--fetch-retry-maxtimeout=2000",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if installed.returncode and NO_NETWORK.search(installed.stderr):
        pytest.skip("npm can't reach its registry")
    assert installed.returncode == 0, installed.stderr
    env = environ(endpoint, BUCKET=BUCKET, NAME="javascript", ROLE_ARN=ROLE)
    output = run(node, "job.mjs", env=env, cwd=folder)
    base, tuned = answers(output)
    assert base != tuned and "Lyon" in tuned
    pieces = [json.loads(piece) for piece in printed_values(output, "piece")]
    assert len(pieces) > 1 and "".join(pieces) == tuned
    assert_nothing_is_left(endpoint)
