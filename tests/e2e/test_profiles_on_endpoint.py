"""Inference profiles against the endpoint: whose policies count, and which id is called."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from botocore.exceptions import ClientError
from endpoint import ACCOUNT, BEDROCK_TRUST, BUCKET, REGION, ROLE, Endpoint, running_endpoint
from processes import wait_until

from cloudft.aws.client import Aws, AwsLocation
from cloudft.backends import make_backend
from cloudft.backends.bedrock.inference_profiles import choose_model_id
from cloudft.spec.load import load_job
from cloudft.storage.home import Home
from cloudft.types import Finding

NOVA_2, TEACHER = "amazon.nova-2-lite-v1:0", "us.amazon.nova-pro-v1:0"
PROFILE_ARN = f"arn:aws:bedrock:{REGION}:{ACCOUNT}:inference-profile"
ROLE_NAME = "distiller"
STUDENT_ROLE = ROLE.replace("bedrock-job", ROLE_NAME)
CHAT: list[Any] = [{"role": "user", "content": [{"text": "Where is the parcel?"}]}]


@pytest.fixture(scope="module")
def endpoint(tiny_model: Path) -> Iterator[Endpoint]:
    """Return an endpoint whose jobs may do what their role's policies allow."""
    options = ("--clock", "fast", "--authorization", "--stand-in", tiny_model)
    with running_endpoint(*options) as made:
        iam = made.client("iam")
        iam.create_role(RoleName=ROLE_NAME, AssumeRolePolicyDocument=json.dumps(BEDROCK_TRUST))
        allow(made, "data", {"Action": "s3:*", "Resource": "*"})
        yield made


def allow(endpoint: Endpoint, name: str, statement: Mapping[str, Any]) -> None:
    """Give the student's role one more inline policy."""
    document = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", **statement}}
    endpoint.client("iam").put_role_policy(
        RoleName=ROLE_NAME, PolicyName=name, PolicyDocument=json.dumps(document)
    )


@pytest.fixture
def job_file(tmp_path: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in endpoint.environ.items():
        monkeypatch.setenv(name, value)
    rows = [{"prompt": f"Where is parcel {n}?"} for n in range(100)]
    tiny.write_jsonl(tmp_path / "train.jsonl", rows)
    spec = {
        "name": "student",
        "base_model": "nova-micro",
        "customization_type": "DISTILLATION",
        "distillation": {"teacher": TEACHER},
        "data": {"train": "train.jsonl"},
        "bedrock": endpoint.bedrock_section
        | {"role_arn": STUDENT_ROLE, "endpoint_url": endpoint.url},
    }
    path = tmp_path / "cloudft.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


def check(path: Path, folder: Path) -> list[Finding]:
    job = load_job(path)
    return list(make_backend("bedrock", Home(folder / "home")).for_job(job).check(job))


def ended_job(endpoint: Endpoint, name: str) -> dict[str, Any]:
    """Create a distillation job and return it at its end."""
    s3, bedrock = endpoint.client("s3"), endpoint.client("bedrock")
    lines = [json.dumps({"messages": CHAT, "schemaVersion": "bedrock-conversation-2024"})] * 100
    s3.put_object(Bucket=BUCKET, Key="prompts.jsonl", Body="\n".join(lines).encode())
    teacher = {"teacherModelConfig": {"teacherModelIdentifier": TEACHER}}
    arn = bedrock.create_model_customization_job(
        jobName=name,
        customModelName=name,
        roleArn=STUDENT_ROLE,
        baseModelIdentifier="amazon.nova-micro-v1:0:128k",
        customizationType="DISTILLATION",
        customizationConfig={"distillationConfig": teacher},
        trainingDataConfig={"s3Uri": f"s3://{BUCKET}/prompts.jsonl"},
        outputDataConfig={"s3Uri": f"s3://{BUCKET}/{name}/"},
    )["jobArn"]

    def ended() -> Any:
        job = bedrock.get_model_customization_job(jobIdentifier=arn)
        return job if job["status"] in ("Completed", "Failed") else None

    return dict(wait_until(ended, "the job has ended"))


def test_a_teachers_profile_needs_its_model_in_each_region(
    endpoint: Endpoint, job_file: Path, tmp_path: Path
) -> None:
    arn = f"{PROFILE_ARN}/{TEACHER}"
    regions = ("us-east-1", "us-east-2", "us-west-2")
    model = "arn:aws:bedrock:{}::foundation-model/amazon.nova-pro-v1:0"
    allow(endpoint, "teacher", {"Action": "bedrock:InvokeModel", "Resource": arn})
    missing = [f for f in check(job_file, tmp_path) if f.code == "RoleDenied"]
    assert [any(model.format(r) in f.message for f in missing) for r in regions] == [True] * 3
    assert not any(arn in f.message for f in missing), "the profile itself is allowed"
    refused = ended_job(endpoint, "refused")
    assert refused["status"] == "Failed"
    assert "bedrock:InvokeModel" in refused["failureMessage"]
    assert model.format("us-east-1") in refused["failureMessage"]

    # The remedies are the statements to add: with them the check is clean, and the job runs.
    for number, finding in enumerate(missing):
        fix = finding.fix.removeprefix("add to the role's policy: ")
        allow(endpoint, f"teacher-{number}", json.loads(fix))
    assert [f.code for f in check(job_file, tmp_path) if f.severity == "error"] == []
    assert ended_job(endpoint, "allowed")["status"] == "Completed"


def test_a_batch_by_a_profile_needs_the_same(endpoint: Endpoint) -> None:
    bedrock, s3 = endpoint.client("bedrock"), endpoint.client("s3")
    record = {
        "recordId": "r",
        "modelInput": {"messages": CHAT, "inferenceConfig": {"maxTokens": 2}},
    }
    s3.upload_fileobj(io.BytesIO(json.dumps(record).encode()), BUCKET, "batch/in.jsonl")

    def run(model: str) -> dict[str, Any]:
        arn = bedrock.create_model_invocation_job(
            jobName=f"batch-{len(bedrock.list_model_invocation_jobs()['invocationJobSummaries'])}",
            roleArn=STUDENT_ROLE,
            modelId=model,
            inputDataConfig={"s3InputDataConfig": {"s3Uri": f"s3://{BUCKET}/batch/in.jsonl"}},
            outputDataConfig={"s3OutputDataConfig": {"s3Uri": f"s3://{BUCKET}/batch/out/"}},
        )["jobArn"]

        def ended() -> Any:
            job = bedrock.get_model_invocation_job(jobIdentifier=arn)
            return job if job["status"] in ("Completed", "Failed") else None

        return dict(wait_until(ended, "the batch has ended"))

    failed = run(f"global.{NOVA_2}")
    assert failed["status"] == "Failed" and "bedrock:InvokeModel" in failed["message"]
    resources = [
        f"{PROFILE_ARN}/global.{NOVA_2}",
        f"arn:aws:bedrock:{REGION}::foundation-model/{NOVA_2}",
        f"arn:aws:bedrock:::foundation-model/{NOVA_2}",
    ]
    allow(endpoint, "batches", {"Action": "bedrock:InvokeModel", "Resource": resources})
    assert run(f"global.{NOVA_2}")["status"] == "Completed"
    assert run("amazon.nova-micro-v1:0")["status"] == "Completed", "its own id needs none"


@pytest.mark.parametrize(
    ("model", "call"),
    [
        (NOVA_2, "converse"),
        ("meta.llama3-3-70b-instruct-v1:0", "converse"),
        ("meta.llama3-1-8b-instruct-v1:0", "count_tokens"),
    ],
)
def test_a_model_that_needs_a_profile_here_refuses_its_own_id(
    endpoint: Endpoint, model: str, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in endpoint.environ.items():
        monkeypatch.setenv(name, value)
    runtime = endpoint.client("bedrock-runtime")

    def ask(identifier: str) -> Any:
        if call == "converse":
            return runtime.converse(modelId=identifier, messages=CHAT)
        return runtime.count_tokens(modelId=identifier, input={"converse": {"messages": CHAT}})

    with pytest.raises(ClientError, match="with on-demand throughput"):
        ask(model)
    chosen = choose_model_id(Aws(AwsLocation(REGION, None, endpoint.url)), model, REGION)
    assert (chosen.id, chosen.notes) == (f"us.{model}", ())
    assert ask(chosen.id)
    assert ask(f"{PROFILE_ARN}/us.{model}")


def test_evaluate_calls_the_requested_profile(
    endpoint: Endpoint, cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Call the requested profile in batches, which need no deployment."""
    for name, value in endpoint.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    rows = [
        {
            "schemaVersion": "bedrock-conversation-2024",
            "messages": [
                {"role": "user", "content": [{"text": f"Where is parcel {n}?"}]},
                {"role": "assistant", "content": [{"text": f"In town {n}."}]},
            ],
        }
        for n in range(205)
    ]
    tiny.write_jsonl(tmp_path / "train.jsonl", rows[:200])
    tiny.write_jsonl(tmp_path / "test.jsonl", rows[200:])
    spec = {
        "name": "lite",
        "base_model": f"global.{NOVA_2}",
        "data": {"train": "train.jsonl", "test": "test.jsonl"},
        "bedrock": endpoint.bedrock_section | {"endpoint_url": endpoint.url},
    }
    (tmp_path / "cloudft.yaml").write_text(yaml.safe_dump(spec))
    submitted = cli("submit", "--backend", "bedrock", "--wait")
    assert submitted.returncode == 0, submitted.stderr
    for options, area in (((), "global"), (("--inference-profile", "us"), "us")):
        done = cli("evaluate", "-", "--batch", "--yes", "--quick", "--output", "json", *options)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["identities"]["base"] == f"{area}.{NOVA_2}"
        assert f"the base model by {area}.{NOVA_2}" in done.stderr
    refused = cli("evaluate", "-", "--inference-profile", "mars", "--yes")
    assert refused.returncode == 2 and "is not an inference profile" in refused.stderr
