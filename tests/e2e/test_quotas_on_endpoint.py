"""The account's quotas from the command line: refused, raised by the printed command, accepted."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from endpoint import Endpoint, running_endpoint
from processes import Cli


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint("--clock", "fast") as made:
        yield made


def write_job(aws: Endpoint, folder: Path, name: str, records: int) -> Path:
    folder.mkdir(exist_ok=True)
    tiny.write_jsonl(folder / "train.jsonl", tiny.pairs(records))
    spec = {"name": name, "base_model": "nova-micro", "data": {"train": "train.jsonl"}}
    path = folder / "cloudft.yaml"
    path.write_text(yaml.safe_dump({**spec, "bedrock": aws.bedrock_section}))
    return path


def run_printed(aws: Endpoint, fix: str) -> None:
    """Do what the AWS CLI would do with the command in a fix."""
    [command] = [part for part in fix.split("`") if "request-service-quota-increase" in part]
    words = shlex.split(command)
    assert words[:3] == ["aws", "service-quotas", "request-service-quota-increase"]
    options = dict(zip(words[3::2], words[4::2], strict=True))
    aws.client("service-quotas").request_service_quota_increase(
        ServiceCode=options["--service-code"],
        QuotaCode=options["--quota-code"],
        DesiredValue=float(options["--desired-value"]),
    )


def test_more_records_than_the_account_may_train_with(
    cli: Cli, aws: Endpoint, tmp_path: Path
) -> None:
    path = write_job(aws, tmp_path / "job", "many", 20_001)
    words = ("check", path, "--backend", "bedrock", "--output", "json")
    refused = cli(*words)
    assert refused.returncode == 3
    [finding] = [f for f in json.loads(refused.stdout)["findings"] if f["severity"] == "error"]
    assert finding["code"] == "TooMuchDataForModel"
    assert "quota L-EC6A6ABC of this account" in finding["message"]
    run_printed(aws, finding["fix"])
    accepted = cli(*words)
    assert accepted.returncode == 0, accepted.stdout
    job = cli("submit", path, "--backend", "bedrock", "--wait", "--output", "json")
    assert json.loads(job.stdout)["status"] == "Completed"


def test_more_deployments_than_the_account_may_have(
    cli: Cli, aws: Endpoint, tmp_path: Path
) -> None:
    jobs: list[Any] = []
    for name in ("theirs", "ours"):
        path = write_job(aws, tmp_path / name, name, 16)
        done = cli("submit", path, "--backend", "bedrock", "--wait", "--output", "json")
        jobs.append(json.loads(done.stdout))
    bedrock = aws.client("bedrock")
    theirs = bedrock.get_model_customization_job(jobIdentifier=jobs[0]["id"])["outputModelArn"]
    for number in range(10):
        bedrock.create_custom_model_deployment(modelDeploymentName=f"d{number}", modelArn=theirs)
    words = ("deploy", jobs[1]["id"], "--yes", "--output", "json")
    refused = cli(*words)
    assert refused.returncode == 4
    error = json.loads(refused.stdout)["error"]
    assert "(L-1EF80F3E): 10 of 10 are used" in error["message"]
    assert aws.calls("CreateCustomModelDeployment")[10:] == []
    run_printed(aws, error["fix"])
    assert cli(*words).returncode == 0
    assert cli("undeploy", jobs[1]["id"], "--yes").returncode == 0
