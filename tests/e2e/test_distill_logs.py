"""From calls with metadata to logs in S3, and from these to a distilled model."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from endpoint import BUCKET, Endpoint, running_endpoint
from processes import Cli

TEACHER = "amazon.nova-pro-v1:0"
SETTINGS = ("local.device=cpu", "local.dtype=float32", "local.lora.r=4", "local.lora.alpha=8")
SETS = [word for setting in SETTINGS for word in ("--set", setting)]
PREFIX = "logs/AWSLogs/000000000000/BedrockModelInvocationLogs/us-east-1/"
SHORT = {"maxTokens": 4}
USED = 104
"""13 full batches of 8: one record more would be another step."""


@pytest.fixture(scope="module")
def endpoint(tiny_model: Path) -> Iterator[Endpoint]:
    with running_endpoint("--stand-in", tiny_model, *SETS) as made:
        config = {"s3Config": {"bucketName": BUCKET, "keyPrefix": "logs"}}
        made.client("bedrock").put_model_invocation_logging_configuration(loggingConfig=config)
        converse = made.client("bedrock-runtime").converse
        for number in range(USED):
            converse(
                modelId=TEACHER,
                messages=[{"role": "user", "content": [{"text": f"Where is parcel {number}?"}]}],
                system=[{"text": "Answer in one word."}],
                inferenceConfig=SHORT,
                requestMetadata={"project": "parcels"},
            )
        for model, project in ((TEACHER, "other"), ("amazon.nova-lite-v1:0", "parcels")):
            message = {"role": "user", "content": [{"text": "Is it late?"}]}
            pairs = {"requestMetadata": {"project": project}, "inferenceConfig": SHORT}
            converse(modelId=model, messages=[message], **pairs)
        yield made


def write_job(folder: Path, endpoint: Endpoint, **logs: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    spec = {
        "name": "from-logs",
        "base_model": "nova-micro",
        "customization_type": "DISTILLATION",
        "data": {"invocation_logs": {"s3_uri": f"s3://{BUCKET}/{PREFIX}", **logs}},
        "distillation": {"teacher": TEACHER},
        "hyperparameters": {"epochCount": 1},
        "bedrock": endpoint.bedrock_section,
    }
    path = folder / "cloudft.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


def test_a_call_is_logged_as_aws_logs_it(aws: Endpoint) -> None:
    keys = [key for key in aws.object_keys() if key.startswith(PREFIX)]
    assert f"{PREFIX}amazon-bedrock-logs-permission-check" in keys
    logs = [key for key in keys if key.endswith(".json.gz")]
    assert len(logs) == USED + 2
    body = aws.client("s3").get_object(Bucket=BUCKET, Key=logs[0])["Body"].read()
    [line] = gzip.decompress(body).splitlines()
    record = json.loads(line)
    assert record["schemaType"] == "ModelInvocationLog"
    assert (record["operation"], record["modelId"]) == ("Converse", TEACHER)
    assert record["requestMetadata"] == {"project": "parcels"}
    assert record["input"]["inputBodyJson"]["system"] == [{"text": "Answer in one word."}]
    assert record["output"]["outputBodyJson"]["output"]["message"]["role"] == "assistant"
    assert record["input"]["inputTokenCount"] > 0
    day = record["timestamp"][:13].replace("-", "/").replace("T", "/")
    assert logs[0].startswith(f"{PREFIX}{day}/")


@pytest.mark.parametrize("command", [["check"], ["submit", "--dry-run"]], ids=["check", "submit"])
def test_what_the_role_lacks_hides_nothing_of_the_logs(
    cli: Cli, aws: Endpoint, tmp_path: Path, command: list[str]
) -> None:
    path = write_job(tmp_path / "job", aws, filters={"equals": {"project": "other"}})
    role = "bedrock.role_arn=arn:aws:iam::000000000000:role/not-there"
    refused = cli(*command, path, "--backend", "bedrock", "--set", role, "--output", "json")
    assert refused.returncode == 3
    codes = {finding["code"] for finding in json.loads(refused.stdout)["findings"]}
    assert {"NoRole", "TooFewRecordsForModel"} <= codes, codes


def test_check_counts_what_the_job_then_trains_on_and_nothing_is_staged(
    cli: Cli, aws: Endpoint, tmp_path: Path
) -> None:
    filters = {"equals": {"project": "parcels"}}
    path = write_job(tmp_path / "job", aws, use_prompt_response=True, filters=filters)
    checked = cli("check", path, "--backend", "bedrock", "--output", "json")
    report = json.loads(checked.stdout)
    messages = [finding["message"] for finding in report["findings"]]
    assert checked.returncode == 0, messages
    read = f"{USED} of {USED + 2} log records in {USED + 2} files are used, as prompts with their"
    assert any(message.startswith(read) for message in messages), messages
    assert any("1 have other request metadata" in message for message in messages)
    [other] = [m for m in messages if "answers of another model than the teacher" in m]
    assert other.endswith("amazon.nova-lite-v1:0)") and ".json.gz:1" in other
    before = [key for key in aws.object_keys() if key.startswith("team/data/")]
    words = ("submit", path, "--backend", "bedrock", "--wait", "--output", "json")
    done = cli(*words, timeout=300)
    assert done.returncode == 0, done.stderr + done.stdout
    job = json.loads(done.stdout)
    assert job["status"] == "Completed" and job["manifest"]["files"] == {}
    assert [key for key in aws.object_keys() if key.startswith("team/data/")] == before
    sent = aws.calls("CreateModelCustomizationJob")[-1]["trainingDataConfig"]
    assert sent == {
        "invocationLogsConfig": {
            "usePromptResponse": True,
            "invocationLogSource": {"s3Uri": f"s3://{BUCKET}/{PREFIX}"},
            "requestMetadataFilters": filters,
        }
    }
    points = json.loads(cli("metrics", job["id"], "--output", "json").stdout)
    assert len(points) == USED // 8
    again = cli(*words, timeout=100)
    assert json.loads(again.stdout)["id"] == job["id"]
    estimated = json.loads(cli("estimate", path, "--output", "json").stdout)
    assert [one["backend"] for one in estimated] == ["bedrock"]
    assert estimated[0]["trainTokens"] > USED


def test_logs_that_no_job_can_use_are_an_error_with_the_reason(
    cli: Cli, aws: Endpoint, tmp_path: Path
) -> None:
    filters = {"equals": {"project": "nothing"}}
    path = write_job(tmp_path / "job", aws, filters=filters)
    done = cli("check", path, "--backend", "bedrock")
    assert done.returncode == 3
    assert f"none of {USED + 2} log records can be used" in done.stderr + done.stdout
    path = write_job(tmp_path / "none", aws, s3_uri=f"s3://{BUCKET}/nothing/")
    done = cli("check", path, "--backend", "bedrock")
    assert done.returncode == 3
    assert "there are no invocation logs at s3://training-bucket/nothing/" in (
        done.stderr + done.stdout
    )


def test_another_backend_says_how_to_bring_the_logs_here(
    cli: Cli, aws: Endpoint, tmp_path: Path
) -> None:
    path = write_job(tmp_path / "job", aws)
    done = cli("check", path, "--backend", "local")
    assert done.returncode == 3
    assert "aws s3 cp --recursive" in done.stderr + done.stdout
