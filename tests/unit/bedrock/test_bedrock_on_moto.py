"""Submitting to moto's own Bedrock: another double than ours, with other habits."""

from __future__ import annotations

import json
from pathlib import Path

import boto3
import pytest
from job_files import write_job_file
from moto import mock_aws

from cloudft.aws.client import Aws, AwsLocation
from cloudft.backends.bedrock import preflight
from cloudft.backends.bedrock.backend import BedrockBackend
from cloudft.jobs import lifecycle, prepare
from cloudft.spec.load import load_job
from cloudft.storage.home import Home
from cloudft.storage.store import Store

ROLE = "arn:aws:iam::000000000000:role/bedrock"


@pytest.fixture
def moto(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with mock_aws():
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="some-bucket")
        yield


@pytest.mark.parametrize("kind", ["FINE_TUNING", "CONTINUED_PRE_TRAINING"])
def test_a_job_is_submitted_once_and_stopped(
    tmp_path: Path, moto: None, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(preflight, "check_job", lambda job, aws: [])  # moto lists no models
    monkeypatch.setattr(BedrockBackend, "records_quota", lambda self, job: None)  # and no quotas
    supervised = kind == "FINE_TUNING"
    path = write_job_file(
        tmp_path,
        Path("titan-text-express"),
        customization_type=kind,
        records=8 if supervised else [{"text": f"text {n}"} for n in range(8)],
        bedrock={"region": "us-east-1", "role_arn": ROLE, "s3_uri": "s3://some-bucket/x"},
        hyperparameters={"learningRate": 0.001},
    )
    home = Home(tmp_path / "home")
    backend = BedrockBackend(home, Aws(AwsLocation(region="us-east-1")))
    staged, _ = prepare.prepare(load_job(path), backend, home)
    plan = backend.plan(staged)
    arn = backend.submit(plan)
    assert backend.submit(plan) == arn
    bedrock = boto3.client("bedrock", region_name="us-east-1")
    [summary] = bedrock.list_model_customization_jobs()["modelCustomizationJobSummaries"]
    assert (summary["jobName"], summary["jobArn"]) == (plan.job_id, arn)
    s3 = boto3.client("s3", region_name="us-east-1")
    keys = {item["Key"] for item in s3.list_objects_v2(Bucket="some-bucket")["Contents"]}
    train = plan.manifest.files["train"]
    assert keys == {f"x/data/{train.sha256}/train.jsonl", f"x/jobs/{plan.job_id}/plan.json"}
    state = backend.describe(plan.job_id)
    assert state.status == "InProgress" and state.failure_message is None
    backend.stop(plan.job_id)
    assert backend.describe(plan.job_id).status == "Stopped"
    store = Store(home.jobs)
    record = lifecycle.make_record(staged, plan, store)
    with store.create(record):
        pass
    assert json.loads((record.folder / "record.json").read_text())["token"] == plan.token
