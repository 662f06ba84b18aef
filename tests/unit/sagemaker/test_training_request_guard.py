"""A request that lacks what the job file sets is never sent, whatever built it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from job_files import write_job_file

from cloudft.aws.client import Aws, AwsLocation
from cloudft.backends.base import with_placeholder_data
from cloudft.backends.sagemaker import request, request_guard
from cloudft.backends.sagemaker.backend import SageMakerBackend
from cloudft.errors import CheckFailed
from cloudft.spec.load import LoadedJob, load_job
from cloudft.storage.home import Home

SDK = json.loads(Path(__file__).with_name("sdk_requests.json").read_text())
"""What the SageMaker SDK's SFTTrainer sends, and what it was given."""
KEY = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"
SECTION = {
    "region": "us-east-1",
    "role_arn": "arn:aws:iam::123456789012:role/job",
    "s3_uri": "s3://my-bucket/team",
    "image_uri": "123456789012.dkr.ecr.us-east-1.amazonaws.com/x:1",
    "instance_type": "ml.m5.xlarge",
    "kms_key_id": KEY,
    "max_runtime_seconds": 7200,
    "spot": True,
    "vpc": {"subnet_ids": ["subnet-1"], "security_group_ids": ["sg-1"]},
}
Make = Callable[..., LoadedJob]


@pytest.fixture
def make(tmp_path: Path, tiny_model: Path) -> Make:
    def load(**section: Any) -> LoadedJob:
        given = {k: v for k, v in (SECTION | section).items() if v is not None}
        path = write_job_file(tmp_path / "job", tiny_model, sagemaker=given, tags={"team": "a"})
        return load_job(path)

    return load


def own_request(job: LoadedJob, tmp_path: Path) -> dict[str, Any]:
    backend = SageMakerBackend(Home(tmp_path), Aws(AwsLocation(region="us-east-1")))
    return request.create_request(backend._job_inputs(with_placeholder_data(job), ()))


def fields(job: LoadedJob, parameters: dict[str, Any]) -> list[str]:
    return [one.field for one in request_guard.find_missing(job.spec, parameters)]


def test_cloudfts_own_request_has_everything(make: Make, tmp_path: Path) -> None:
    more = {"volume_gb": 80, "max_wait_seconds": 9000, "network_isolation": True}
    job = make(**more)
    assert fields(job, own_request(job, tmp_path)) == []


LOSSES = {
    "RoleArn": "sagemaker.role_arn",
    "OutputDataConfig.KmsKeyId": "sagemaker.kms_key_id",
    "ResourceConfig.VolumeKmsKeyId": "sagemaker.kms_key_id",
    "ResourceConfig.InstanceType": "sagemaker.instance_type",
    "StoppingCondition.MaxRuntimeInSeconds": "sagemaker.max_runtime_seconds",
    "EnableManagedSpotTraining": "sagemaker.spot",
    "VpcConfig.Subnets": "sagemaker.vpc.subnet_ids",
    "VpcConfig.SecurityGroupIds": "sagemaker.vpc.security_group_ids",
    "Tags": "tags.team",
}


@pytest.mark.parametrize("member", sorted(LOSSES))
def test_each_member_that_is_lost_is_named(make: Make, tmp_path: Path, member: str) -> None:
    job = make()
    parameters = copy.deepcopy(own_request(job, tmp_path))
    *path, last = member.split(".")
    inner = parameters
    for name in path:
        inner = inner[name]
    del inner[last]
    assert fields(job, parameters) == [LOSSES[member]]
    with pytest.raises(CheckFailed) as refused:
        request_guard.require_complete("the job can't be created", job.spec, parameters)
    assert member in refused.value.message and refused.value.field == LOSSES[member]


def test_another_value_is_as_bad_as_none(make: Make, tmp_path: Path) -> None:
    job = make()
    parameters = own_request(job, tmp_path)
    parameters["StoppingCondition"] = {"MaxRuntimeInSeconds": 3600}
    [missing] = [
        one
        for one in request_guard.find_missing(job.spec, parameters)
        if one.field == "sagemaker.max_runtime_seconds"
    ]
    assert "is 7200" in missing.message and "is 3600" in missing.message


def test_the_sdks_request_on_instances_is_refused(make: Make) -> None:
    """Sagemaker-train 1.27.0 leaves out keys and spot, and limits nothing that it was not given."""
    job = make(instance_type="ml.m5.xlarge", image_uri=None)
    sent = copy.deepcopy(SDK["instances"])
    sent["ResourceConfig"]["InstanceType"] = "ml.m5.xlarge"
    found = {(one.field, one.member) for one in request_guard.find_missing(job.spec, sent)}
    assert found == {
        ("sagemaker.kms_key_id", "OutputDataConfig.KmsKeyId"),
        ("sagemaker.kms_key_id", "ResourceConfig.VolumeKmsKeyId"),
        ("sagemaker.spot", "EnableManagedSpotTraining"),
    }
    assert "ModelPackageConfig" not in sent  # the group that was given is lost too


def test_the_disk_of_a_machine_with_its_own_takes_no_key(make: Make, tmp_path: Path) -> None:
    job = make(instance_type="ml.g5.2xlarge")
    parameters = own_request(job, tmp_path)
    assert "VolumeKmsKeyId" not in parameters["ResourceConfig"]
    assert fields(job, parameters) == []


def test_a_submit_sends_nothing_when_a_setting_is_lost(make: Make, tmp_path: Path) -> None:
    """A plan that an earlier build has recorded is compared with its job file, too."""
    from cloudft.backends.sagemaker.serverless.job import make_plan

    serverless = {"model_package_group": "team", "model": "huggingface-reasoning-qwen3-06b"}
    machine = {"instance_type": None, "image_uri": None, "spot": None}
    job = make(**machine, serverless=serverless)
    plan = make_plan(with_placeholder_data(job))
    del plan.request["calls"][-1]["parameters"]["OutputDataConfig"]["KmsKeyId"]
    sent: list[str] = []

    class Silent(Aws):
        def call(self, what: str, service: str, operation: str, **parameters: Any) -> Any:
            sent.append(operation)
            raise AssertionError(operation)

    backend = SageMakerBackend(Home(tmp_path), Silent(AwsLocation(region="us-east-1")))
    backend._find_training_job = lambda plan: None  # type: ignore[method-assign]
    with pytest.raises(CheckFailed, match=r"OutputDataConfig\.KmsKeyId"):
        backend.submit(plan)
    assert sent == []
