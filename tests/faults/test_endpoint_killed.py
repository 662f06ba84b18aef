"""The endpoint is killed while a job trains: after a restart the job completes, with one model."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import preloaded
import pytest
import tiny
from endpoint import BUCKET, ROLE, Endpoint, create_bucket_and_roles
from processes import read_json, wait_until

MOMENTS = range(20 if os.environ.get("CLOUDFT_ALL_MOMENTS") else 2)
MAX_JOB_S = 6.0
"""About the time of a job from its creation to its end."""


def start_endpoint(
    state: Path, model: Path, python: str = sys.executable
) -> tuple[subprocess.Popen[str], Endpoint]:
    """Start an endpoint with a state folder."""
    command = [python, "-m", "cloudft", "endpoint", "-q", "--state", str(state)]
    command += ["--stand-in", str(model)]
    for setting in ("local.method=full", "local.max_length=64"):
        command += ["--set", setting]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Endpoint(process.stdout.readline().strip())


def kill_endpoint(process: subprocess.Popen[str], state: Path, *, trainers: bool) -> None:
    """Kill the endpoint; with `trainers` its trainings, too, as if the machine had gone down."""
    process.kill()
    process.communicate()
    if trainers:
        for note in state.glob("jobs/*/trainer.json"):
            for pid in (read_json(note) or {}).values():
                with contextlib.suppress(OSError, TypeError):
                    os.kill(pid, signal.SIGKILL)


def create_job(endpoint: Endpoint, name: str) -> str:
    bedrock = endpoint.client("bedrock")
    return str(
        bedrock.create_model_customization_job(
            jobName=name,
            customModelName=name,
            roleArn=ROLE,
            baseModelIdentifier="amazon.titan-text-express-v1:0:8k",
            trainingDataConfig={"s3Uri": f"s3://{BUCKET}/train.jsonl"},
            outputDataConfig={"s3Uri": f"s3://{BUCKET}/{name}"},
            hyperParameters={"epochCount": "10", "batchSize": "1", "learningRate": "0.001"},
        )["jobArn"]
    )


@pytest.mark.parametrize("number", MOMENTS)
def test_a_killed_endpoint_resumes_its_job(tmp_path: Path, tiny_model: Path, number: int) -> None:
    chance = random.Random(number)
    process, endpoint = start_endpoint(tmp_path / "state", tiny_model)
    try:
        create_bucket_and_roles(endpoint)
        lines = [json.dumps({"prompt": f"Where is {c}?", "completion": c}) for c in tiny.CITIES]
        body = "\n".join(lines * 4).encode()
        endpoint.client("s3").put_object(Bucket=BUCKET, Key="train.jsonl", Body=body)
        arn = create_job(endpoint, "survives")
        time.sleep(chance.uniform(0.0, MAX_JOB_S))
        kill_endpoint(process, tmp_path / "state", trainers=number % 2 == 1)
        process, endpoint = start_endpoint(tmp_path / "state", tiny_model)
        bedrock = endpoint.client("bedrock")

        def poll() -> Any:
            job = bedrock.get_model_customization_job(jobIdentifier=arn)
            return job if job["status"] != "InProgress" else None

        job = wait_until(poll, "the job has ended", seconds=90)
        assert job["status"] == "Completed", job
        [model_made] = bedrock.list_custom_models()["modelSummaries"]
        assert model_made["modelArn"] == job["outputModelArn"]
        key = f"survives/model-customization-job-{arn[-12:]}/training_artifacts/"
        curve = f"{key}step_wise_training_metrics.csv"
        rows = endpoint.client("s3").get_object(Bucket=BUCKET, Key=curve)["Body"].read()
        steps = [line.split(b",")[0] for line in rows.splitlines()[1:]]
        assert steps == [str(n).encode() for n in range(len(steps))] and len(steps) == 320
    finally:
        kill_endpoint(process, tmp_path / "state", trainers=True)


def test_a_job_that_an_orderly_end_stopped_is_resumed(tmp_path: Path, tiny_model: Path) -> None:
    process, endpoint = start_endpoint(tmp_path / "state", tiny_model, preloaded.interpreter_path())
    try:
        create_bucket_and_roles(endpoint)
        body = b'{"prompt": "Where is Oslo?", "completion": "Oslo"}\n' * 32
        endpoint.client("s3").put_object(Bucket=BUCKET, Key="train.jsonl", Body=body)
        arn = create_job(endpoint, "ordered")
        bedrock = endpoint.client("bedrock")

        def trains() -> Any:
            job = bedrock.get_model_customization_job(jobIdentifier=arn)
            return job["statusDetails"]["trainingDetails"]["status"] == "InProgress"

        wait_until(trains, "the job trains")
        process.terminate()
        process.communicate(timeout=30)
        process, endpoint = start_endpoint(
            tmp_path / "state", tiny_model, preloaded.interpreter_path()
        )
        bedrock = endpoint.client("bedrock")

        def poll() -> Any:
            job = bedrock.get_model_customization_job(jobIdentifier=arn)
            return job if job["status"] != "InProgress" else None

        assert wait_until(poll, "the job has ended", seconds=90)["status"] == "Completed"
    finally:
        kill_endpoint(process, tmp_path / "state", trainers=True)


def test_two_endpoints_never_share_a_state(tmp_path: Path, tiny_model: Path) -> None:
    state = tmp_path / "state"
    process, _ = start_endpoint(state, tiny_model)
    try:
        assert state.stat().st_mode & 0o077 == 0, "it holds training data"
        command = [sys.executable, "-m", "cloudft", "endpoint", "--state", str(state)]
        second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert second.returncode == 2 and "another endpoint" in second.stderr
    finally:
        kill_endpoint(process, state, trainers=True)
    process, endpoint = start_endpoint(state, tiny_model)
    kill_endpoint(process, state, trainers=True)
    assert endpoint.url, "a killed one holds nothing"


def test_it_ends_in_an_orderly_way_with_the_process_of_until_pid(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as owner:
        command = [sys.executable, "-m", "cloudft", "endpoint", "-q", "--until-pid", str(owner.pid)]
        environ = os.environ | {"TMPDIR": str(tmp_path)}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ)
        assert process.stdout is not None and process.stdout.readline()
        assert list(tmp_path.glob("cloudft-endpoint-*"))
        owner.kill()
    process.communicate(timeout=30)
    assert list(tmp_path.glob("cloudft-endpoint-*")) == []


STACK = """
Resources:
  Vpc: {Type: "AWS::EC2::VPC", Properties: {CidrBlock: 10.0.0.0/24}}
  Subnet: {Type: "AWS::EC2::Subnet", Properties: {VpcId: !Ref Vpc, CidrBlock: 10.0.0.0/25}}
  Key: {Type: "AWS::KMS::Key", Properties: {KeyPolicy: {Statement: []}}}
  Bucket: {Type: "AWS::S3::Bucket"}
Outputs:
  Names: {Value: !Join [" ", [!Ref Vpc, !Ref Subnet, !GetAtt Key.Arn, !Ref Bucket]]}
"""


def test_a_stack_and_its_resources_survive_a_kill(tmp_path: Path, tiny_model: Path) -> None:
    process, endpoint = start_endpoint(tmp_path / "state", tiny_model)
    try:
        names = {"StackName": "kept", "ChangeSetName": "first"}
        client = endpoint.client("cloudformation")
        client.create_change_set(**names, ChangeSetType="CREATE", TemplateBody=STACK)
        client.execute_change_set(**names)
        [output] = wait_until(lambda: _outputs(endpoint), "the stack")
        vpc, subnet, key, bucket = output["OutputValue"].split()
        kill_endpoint(process, tmp_path / "state", trainers=False)
        process, endpoint = start_endpoint(tmp_path / "state", tiny_model)
        assert _outputs(endpoint) == [output]
        ec2 = endpoint.client("ec2")
        [there] = ec2.describe_subnets(SubnetIds=[subnet])["Subnets"]
        assert there["VpcId"] == vpc
        assert endpoint.client("kms").describe_key(KeyId=key)["KeyMetadata"]["Enabled"]
        endpoint.client("s3").head_bucket(Bucket=bucket)
        endpoint.client("cloudformation").delete_stack(StackName="kept")
        wait_until(lambda: _networks(endpoint) == {"default"}, "the end of the stack")
    finally:
        kill_endpoint(process, tmp_path / "state", trainers=True)


def _outputs(endpoint: Endpoint) -> list[dict[str, str]]:
    [stack] = endpoint.client("cloudformation").describe_stacks(StackName="kept")["Stacks"]
    return list(stack.get("Outputs", ())) if stack["StackStatus"] == "CREATE_COMPLETE" else []


def _networks(endpoint: Endpoint) -> set[str]:
    vpcs = endpoint.client("ec2").describe_vpcs()["Vpcs"]
    return {"default" if vpc["IsDefault"] else vpc["VpcId"] for vpc in vpcs}
