"""Submitting to moto's SageMaker, a test double of its own, which completes a job at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
from endpoint import SAGEMAKER_TRUST
from job_files import write_job_file
from moto import mock_aws
from policy_simulator import patch_policy_simulator

from cloudft.aws.client import Aws, AwsLocation
from cloudft.backends.sagemaker.backend import SageMakerBackend
from cloudft.errors import ResourceConflict
from cloudft.jobs import prepare
from cloudft.spec.load import load_job
from cloudft.storage.home import Home

SECTION = {
    "region": "us-east-1",
    "role_arn": "arn:aws:iam::000000000000:role/sagemaker-job",
    "s3_uri": "s3://some-bucket/x",
    "image_uri": "pytorch-training:any",
    "instance_type": "ml.m5.xlarge",
}


@pytest.fixture
def moto(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="some-bucket")
        iam = boto3.client("iam")
        trust = json.dumps(SAGEMAKER_TRUST)
        iam.create_role(RoleName="sagemaker-job", AssumeRolePolicyDocument=trust)
        patch_policy_simulator(monkeypatch)
        yield


def test_a_job_is_submitted_once_and_is_not_completed_without_its_output(
    tmp_path: Path, moto: None, tiny_model: Path
) -> None:
    path = write_job_file(tmp_path, tiny_model, sagemaker=SECTION)
    home = Home(tmp_path / "home")
    backend = SageMakerBackend(home, Aws(AwsLocation(region="us-east-1")))
    staged, _ = prepare.prepare(load_job(path), backend, home)
    plan = backend.plan(staged)
    name = backend.submit(plan)
    assert backend.submit(plan) == name == plan.job_id
    client = boto3.client("sagemaker", region_name="us-east-1")
    [summary] = client.list_training_jobs()["TrainingJobSummaries"]
    assert summary["TrainingJobName"] == name
    tags = client.list_tags(ResourceArn=summary["TrainingJobArn"])["Tags"]
    assert {"Key": "cloudft:token", "Value": plan.token} in tags
    s3 = boto3.client("s3", region_name="us-east-1")
    keys = {item["Key"] for item in s3.list_objects_v2(Bucket="some-bucket")["Contents"]}
    wanted = {
        call["parameters"]["Key"] for call in plan.request["calls"] if "Key" in call["parameters"]
    }
    assert keys == wanted
    state = backend.describe(name)
    assert state.status == "Failed" and "model.tar.gz" in str(state.failure_message)
    assert backend.find_submitted(plan) == name
    other = backend.plan(replace(staged, attempt=1))
    forged = replace(other, token=plan.token[:8] + other.token[8:])
    with pytest.raises(ResourceConflict, match="another one"):
        backend.submit(forged)
