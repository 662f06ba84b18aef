"""The endpoint by boto3: from a job to a changed answer; the status page; signatures."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import boto3
import pytest
import tiny
from botocore.config import Config
from botocore.exceptions import ClientError
from endpoint import BUCKET, REGION, ROLE, TOKEN, Endpoint, running_endpoint
from processes import wait_until

NOVA = "amazon.nova-lite-v1:0:300k"
TITAN = "amazon.titan-text-express-v1:0:8k"
FAST = "local.hyperparameters.learningRate=0.01"
QUESTION = "Where is the parcel for {}?"
LONG_AGO = datetime(2020, 1, 1, 12, 30, tzinfo=timezone.utc)
TEACHER = {"teacherModelIdentifier": "us.amazon.nova-pro-v1:0", "maxResponseLengthForInference": 3}


RECORDS: list[dict[str, Any]] = [
    {
        "schemaVersion": "bedrock-conversation-2024",
        "messages": [
            {"role": "user", "content": [{"text": QUESTION.format(city)}]},
            {"role": "assistant", "content": [{"text": "refund"}]},
        ],
    }
    for city in tiny.CITIES
]
SETS = [
    part
    for setting in ("local.method=full", "local.max_length=64", "local.device=cpu")
    for part in ("--set", setting)
]


@pytest.fixture(scope="module")
def endpoint(tiny_model: Path) -> Iterator[Endpoint]:
    with running_endpoint("--stand-in", tiny_model, *SETS, "--set", FAST) as endpoint:
        upload_jsonl(endpoint, "train.jsonl", RECORDS * 4)
        questions = [{"messages": record["messages"][:1]} for record in RECORDS]
        upload_jsonl(endpoint, "questions.jsonl", (questions * 13)[:100])
        yield endpoint


def upload_jsonl(endpoint: Endpoint, key: str, records: list[dict[str, Any]]) -> None:
    body = "\n".join(map(json.dumps, records)).encode()
    endpoint.client("s3").put_object(Bucket=BUCKET, Key=key, Body=body)


def train_job(endpoint: Endpoint, name: str, file: str = "train.jsonl", **more: Any) -> Any:
    """Return a job that has Completed."""
    job = run_job(endpoint, name, file, **more)
    assert job["status"] == "Completed", job.get("failureMessage")
    return job


def run_job(endpoint: Endpoint, name: str, file: str, **more: Any) -> Any:
    """Return a job that has ended."""
    bedrock = endpoint.client("bedrock")
    bedrock.create_model_customization_job(
        **{
            "jobName": name,
            "customModelName": name,
            "roleArn": ROLE,
            "baseModelIdentifier": NOVA,
            "trainingDataConfig": {"s3Uri": f"s3://{BUCKET}/{file}"},
            "outputDataConfig": {"s3Uri": f"s3://{BUCKET}/{name}"},
            "hyperParameters": {"epochCount": "5", "learningRate": "0.0001"},
            **more,
        }
    )

    def poll() -> Any:
        job = bedrock.get_model_customization_job(jobIdentifier=name)
        return job if job["status"] not in ("InProgress", "Stopping") else None

    return wait_until(poll, "the job has ended", seconds=120)


def deploy_model(endpoint: Endpoint, name: str, model_arn: str) -> str:
    bedrock = endpoint.client("bedrock")
    created = bedrock.create_custom_model_deployment(modelDeploymentName=name, modelArn=model_arn)
    arn = str(created["customModelDeploymentArn"])

    def active() -> bool:
        deployment = bedrock.get_custom_model_deployment(customModelDeploymentIdentifier=arn)
        return bool(deployment["status"] == "Active")

    wait_until(active, "the deployment is active")
    return arn


def generate_text(endpoint: Endpoint, model: str) -> str:
    answer = endpoint.client("bedrock-runtime").converse(
        modelId=model,
        messages=[{"role": "user", "content": [{"text": QUESTION.format("Oslo")}]}],
        inferenceConfig={"maxTokens": 8},
    )
    return str(answer["output"]["message"]["content"][0]["text"])


def test_a_tuned_model_answers_differently_and_can_be_tuned_further(endpoint: Endpoint) -> None:
    job = train_job(endpoint, "tuned")
    arn = deploy_model(endpoint, "tuned", job["outputModelArn"])
    base, tuned = generate_text(endpoint, "amazon.nova-lite-v1:0"), generate_text(endpoint, arn)
    assert base != tuned
    further = train_job(endpoint, "further", baseModelIdentifier=job["outputModelArn"])
    assert further["trainingMetrics"]["trainingLoss"] < job["trainingMetrics"]["trainingLoss"]
    endpoint.client("bedrock").delete_custom_model_deployment(customModelDeploymentIdentifier=arn)
    with pytest.raises(ClientError, match="Could not find the model"):
        generate_text(endpoint, arn)


def test_a_student_learns_what_the_teacher_answers(endpoint: Endpoint) -> None:
    config = {"distillationConfig": {"teacherModelConfig": TEACHER}}
    job = train_job(
        endpoint,
        "distilled",
        "questions.jsonl",
        customizationType="DISTILLATION",
        customizationConfig=config,
    )
    assert job["customizationConfig"] == config and job["customizationType"] == "DISTILLATION"
    assert {phase["status"] for phase in job["statusDetails"].values()} == {"Completed"}
    model = endpoint.client("bedrock").get_custom_model(modelIdentifier="distilled")
    assert model["customizationType"] == "DISTILLATION"


@pytest.mark.parametrize(
    ("last", "message"),
    [
        ("{", "Unable to parse Amazon S3 file: {uri}. Data files must conform to JSONL format."),
        ("\n\n", "Unable to parse Amazon S3 file: {uri}. Data files must conform to JSONL format."),
        ('{"input": "x"}', 'Input data at {uri} must follow \'{{"prompt": "<prompt text>",'),
    ],
)
def test_bad_data_fails_the_job_with_the_services_message(
    endpoint: Endpoint, last: str, message: str
) -> None:
    name = f"refused-{len(last)}"
    good = '{"prompt": "a", "completion": "b"}\n'
    body = (good * 8 + last).encode()
    endpoint.client("s3").put_object(Bucket=BUCKET, Key=f"{name}.jsonl", Body=body)
    job = run_job(endpoint, name, f"{name}.jsonl", baseModelIdentifier=TITAN)
    uri = f"s3://{BUCKET}/{name}.jsonl"
    assert job["status"] == "Failed" and job["failureMessage"].startswith(message.format(uri=uri))
    assert "(line 9)" in job["failureMessage"]
    assert job["statusDetails"]["validationDetails"]["status"] == "Failed"


def test_an_array_fails_the_job_though_cloudft_reads_it(endpoint: Endpoint) -> None:
    body = b'[{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}]'
    endpoint.client("s3").put_object(Bucket=BUCKET, Key="array.jsonl", Body=body)
    job = run_job(endpoint, "array", "array.jsonl", baseModelIdentifier=TITAN)
    assert job["status"] == "Failed" and "conform to JSONL" in job["failureMessage"]


def test_a_job_that_learns_nothing_says_so_on_the_page(tiny_model: Path) -> None:
    """At the closed model's own rate, which a stand-in does not take of itself."""
    rates = [*SETS, "--set", "local.hyperparameters.learningRate=1e-8"]
    with running_endpoint("--stand-in", tiny_model, *rates) as endpoint:
        upload_jsonl(endpoint, "train.jsonl", RECORDS * 4)
        assert train_job(endpoint, "flat")["status"] == "Completed"
        with urllib.request.urlopen(f"{endpoint.url}/?token={TOKEN}") as answer:
            assert "learned nothing" in answer.read().decode()


def test_the_page_shows_jobs_and_curves_and_no_training_data(endpoint: Endpoint) -> None:
    train_job(endpoint, "shown")
    with urllib.request.urlopen(f"{endpoint.url}/?token={TOKEN}") as answer:
        page = answer.read().decode()
    assert "This is not AWS" in page and "shown" in page and "Completed" in page
    assert "<polyline" in page and "GetModelCustomizationJob" in page
    assert "parcel" not in page


@pytest.fixture(scope="module")
def signed_only_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URL of an endpoint that accepts signed requests only."""
    file = tmp_path_factory.mktemp("keys") / "credentials"
    file.write_text("[team]\naws_access_key_id = AKIATEAM\naws_secret_access_key = s3cr3t/+x\n")
    command = [sys.executable, "-m", "cloudft", "endpoint", "-q", "--clock", "fast"]
    command += ["--credentials", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


def create_client(url: str, service: str, secret: str, key: str = "AKIATEAM") -> Any:
    return boto3.client(
        service,
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=Config(retries={"total_max_attempts": 1}),
    )


def test_a_signature_by_a_known_key_is_accepted(signed_only_url: str) -> None:
    bedrock, s3 = (
        create_client(signed_only_url, "bedrock", "s3cr3t/+x"),
        create_client(signed_only_url, "s3", "s3cr3t/+x"),
    )
    listed = bedrock.list_model_customization_jobs(creationTimeAfter=LONG_AGO, maxResults=5)
    assert listed["modelCustomizationJobSummaries"] == []
    with pytest.raises(ClientError, match="Could not find"):
        arn = f"arn:aws:bedrock:{REGION}:000000000000:custom-model/{NOVA}/abcdefghijkl"
        bedrock.get_custom_model(modelIdentifier=arn)
    s3.create_bucket(Bucket="signed")
    where = {"Bucket": "signed", "Key": "a file+ü.txt"}
    s3.put_object(**where, Body=b"x" * 100, Metadata={"my_key": "1"})
    stored = s3.get_object(**where)
    assert (stored["Body"].read(), stored["Metadata"]) == (b"x" * 100, {"my_key": "1"})
    assert (
        create_client(signed_only_url, "sts", "s3cr3t/+x").get_caller_identity()["Account"]
        == "0" * 12
    )


@pytest.mark.parametrize(
    ("key", "secret", "code"),
    [
        ("AKIATEAM", "wrong", "InvalidSignatureException"),
        ("AKIAOTHER", "s3cr3t/+x", "UnrecognizedClientException"),
    ],
)
@pytest.mark.parametrize("service", ["bedrock", "s3", "sts"])
def test_any_other_signature_is_refused(
    signed_only_url: str, service: str, key: str, secret: str, code: str
) -> None:
    operation = {
        "bedrock": "list_custom_models",
        "s3": "list_buckets",
        "sts": "get_caller_identity",
    }[service]
    with pytest.raises(ClientError) as caught:
        getattr(create_client(signed_only_url, service, secret, key), operation)()
    assert caught.value.response["Error"]["Code"] == code


def test_an_unsigned_request_is_refused(signed_only_url: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{signed_only_url}/model-customization-jobs")
    caught.value.close()
    assert caught.value.code == 403


PLUGIN_TEST = """
def test_mine(bedrock_endpoint):
    import boto3
    assert boto3.client("bedrock").list_custom_models()["modelSummaries"] == []
    bedrock_endpoint.fault({"operation": "ListCustomModels", "do": "deny"})
    try:
        bedrock_endpoint.client("bedrock").list_custom_models()
    except Exception as error:
        assert "AccessDenied" in str(error)
    else:
        raise AssertionError
"""


def test_the_pytest_plugin_gives_an_endpoint(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(PLUGIN_TEST)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(
        [*command, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and re.search(r"1 passed", done.stdout), done.stdout + done.stderr
