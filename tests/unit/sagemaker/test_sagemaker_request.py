"""A job's CreateTrainingJob request, what is refused before it, and SageMaker's states as ours."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from job_files import write_job_file

from cloudft import catalogue
from cloudft.aws.client import Aws, AwsLocation
from cloudft.aws.request_validation import load_service_model, validate_request
from cloudft.aws.stack import Stack
from cloudft.backends.base import StagedJob
from cloudft.backends.sagemaker import images, instances, preflight, request, states
from cloudft.backends.sagemaker.backend import SageMakerBackend
from cloudft.backends.trainer_documents import TrainerState, TrainerStatusDetails
from cloudft.data.staging.manifest import parse_manifest
from cloudft.data.staging.stage import stage_data
from cloudft.errors import CheckFailed, OverBudget
from cloudft.jobs import lifecycle, prepare
from cloudft.spec.load import LoadedJob, load_job
from cloudft.storage.home import Home
from cloudft.types import DataVolume, Finding, JobState, Plan, Status, to_json

ROLE = "arn:aws:iam::123456789012:role/sagemaker-job"
SECTION = {
    "region": "eu-west-1",
    "role_arn": ROLE,
    "s3_uri": "s3://my-bucket/team",
    "image_uri": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/pytorch-training:2.8.0-gpu-py312",
}
VOLUME = DataVolume(10, 1000, 200)
Make = Callable[..., LoadedJob]


@pytest.fixture
def make(tmp_path: Path, tiny_model: Path) -> Make:
    def load(section: dict[str, Any] | None = None, **more: Any) -> LoadedJob:
        given = {k: v for k, v in (SECTION | (section or {})).items() if v is not None}
        model = Path(more.pop("model", tiny_model))
        return load_job(write_job_file(tmp_path / "job", model, sagemaker=given, **more))

    return load


def plan_of(job: LoadedJob, tmp_path: Path, attempt: int = 0) -> Plan:
    backend = SageMakerBackend(Home(tmp_path / "home"), Aws(AwsLocation(region="eu-west-1")))
    staged = stage_data(
        job.spec.data,
        customization_type=job.spec.customization_type,
        format="converse",
        seed=7,
        base_dir=job.base_dir,
        root=tmp_path / "staged",
    )
    return backend.plan(StagedJob(job, staged.manifest, staged.folder, attempt))


def created(plan: Plan) -> dict[str, Any]:
    call = plan.request["calls"][-1]
    assert (call["service"], call["operation"]) == ("sagemaker", request.CREATE)
    found: dict[str, Any] = call["parameters"]
    assert validate_request("sagemaker", "CreateTrainingJob", found) == []
    return found


def findings_of(job: LoadedJob) -> dict[str, Finding]:
    """Return the findings without an account: it is not read while there are errors."""
    backend = SageMakerBackend(Home(job.base_dir)).for_job(job)
    return {f.code: f for f in backend.check(job)}


def codes(job: LoadedJob) -> list[str]:
    return [finding.code for finding in findings_of(job).values() if finding.severity == "error"]


def test_every_status_of_the_api_has_its_word() -> None:
    model = load_service_model("sagemaker")
    assert set(states.STATES) == set(model.shape_for("TrainingJobStatus").enum)
    assert set(states.ACTIVITIES) == set(model.shape_for("SecondaryStatus").enum)
    assert set(states.STATES.values()) == set(get_args(Status))
    assert set(states.ACTIVITIES) > states.TIMEOUTS
    known = set(model.shape_for("TrainingInstanceType").enum)
    assert set(catalogue.load_instances().by_name) <= known


def test_the_whole_request_is_a_value(make: Make, tmp_path: Path) -> None:
    section = {
        "spot": True,
        "instance_type": "ml.m5.xlarge",
        "kms_key_id": "alias/models",
        "vpc": {"subnet_ids": ["subnet-1"], "security_group_ids": ["sg-1"]},
        "max_runtime_seconds": 3600,
    }
    plan = plan_of(make(section, name="A.b", tags={"team": "x"}), tmp_path)
    wanted = created(plan)
    job = wanted["HyperParameters"]["cloudft-job"]
    assert job == plan.job_id and wanted["TrainingJobName"] == job.replace(".", "-")
    assert wanted["CheckpointConfig"] == {
        "S3Uri": f"s3://my-bucket/team/jobs/{job}/checkpoints/",
        "LocalPath": "/opt/ml/checkpoints",
    }
    assert wanted["StoppingCondition"] == {
        "MaxRuntimeInSeconds": 3600,
        "MaxWaitTimeInSeconds": 7200,
    }
    assert wanted["EnableManagedSpotTraining"] and wanted["VpcConfig"]["Subnets"] == ["subnet-1"]
    assert wanted["OutputDataConfig"]["KmsKeyId"] == "alias/models"
    assert wanted["ResourceConfig"]["VolumeKmsKeyId"] == "alias/models"
    assert {"Key": "team", "Value": "x"} in wanted["Tags"]
    channels = {c["ChannelName"]: c for c in wanted["InputDataConfig"]}
    assert channels.keys() == {"code", "job", "train", "model"}
    assert {n: c["InputMode"] for n, c in channels.items() if c["InputMode"] != "File"} == {
        "train": "FastFile"
    }
    data = plan.request["job"]["data"]["train"]
    uri = channels["train"]["DataSource"]["S3DataSource"]["S3Uri"]
    assert uri == f"s3://my-bucket/team/data/{data['sha256']}/"
    assert plan.request["job"]["model"]["weights"] == [{"kind": "folder", "path": "model"}]
    assert plan.request["job"]["device"] == "auto"
    assert {"model/config.json", "model/model.safetensors", "train"} <= plan.files.keys()
    puts = [call for call in plan.request["calls"] if call["operation"] == "put_object"]
    assert all(p["parameters"]["ExpectedBucketOwner"] == "123456789012" for p in puts)
    assert parse_manifest(to_json(plan.manifest)) == plan.manifest


def test_a_warm_machine_without_a_network_and_a_key_for_what_is_staged(
    make: Make, tmp_path: Path
) -> None:
    section = {"keep_alive_seconds": 600, "network_isolation": True, "s3_kms_key_id": "alias/s3"}
    plan = plan_of(make(section), tmp_path)
    wanted = created(plan)
    assert wanted["ResourceConfig"]["KeepAlivePeriodInSeconds"] == 600
    assert wanted["EnableNetworkIsolation"] is True and "VpcConfig" not in wanted
    puts = [call["parameters"] for call in plan.request["calls"][:-1]]
    assert {put["SSEKMSKeyId"] for put in puts} == {"alias/s3"}


def test_the_token_follows_from_the_job_and_not_from_the_caller(make: Make, tmp_path: Path) -> None:
    first = plan_of(make(), tmp_path)
    assert plan_of(make({"profile": "other"}), tmp_path).token == first.token
    others = [
        make({"spot": True}),
        make({"s3_uri": "s3://my-bucket/elsewhere"}),
        make(name="other"),
        make(hyperparameters={"epochCount": 9}),
        make(local={"lora": {"r": 2}}),
    ]
    tokens = {plan_of(job, tmp_path).token for job in others}
    assert len(tokens | {first.token, plan_of(make(), tmp_path, attempt=1).token}) == 7


def test_names_fit_whatever_the_job_is_called() -> None:
    for name in ("a", "A+b.c", "x" * 54, "9" + "-." * 26 + "z"):
        made = request.training_job_name(f"{name}-0123abcd")
        assert validate_request("sagemaker", "StopTrainingJob", {"TrainingJobName": made}) == []
        assert request.training_job_name(made) == made and len(f"{made}-r99") <= 63
        found = request.TRAINING_JOB_NAME.fullmatch(f"{made}-r3")
        assert found and (found["base"], found["number"]) == (made, "3")


def test_the_machine_is_the_cheapest_that_fits_and_unknown_prices_are_said(
    make: Make, tmp_path: Path
) -> None:
    job = make()
    assert instances.choose_instance_type(job) == "ml.g6.xlarge"
    sized = dataclasses.replace(job, model=dataclasses.replace(job.model, parameters=14 * 10**9))
    assert instances.choose_instance_type(sized) == "ml.g6e.xlarge"
    full = make(local={"method": "full"})
    full = dataclasses.replace(full, model=sized.model)
    assert instances.choose_instance_type(full) is None
    assert codes(full) == ["NoInstance"]
    sharded = make(local={"method": "full", "fsdp": True}, hyperparameters={"batchSize": 8})
    sharded = dataclasses.replace(sharded, model=sized.model)
    assert instances.choose_instance_type(sharded) == "ml.p4de.24xlarge", (
        "8 GPUs of 80 GiB hold it together"
    )
    assert codes(sharded) == []
    backend = SageMakerBackend(Home(tmp_path))
    known = backend.estimate(job, {"train": VOLUME})
    assert known.usd["training"] == pytest.approx(24 * 1.127)
    assert "at most 24 h of 1 x ml.g6.xlarge" in known.price_source and known.price_date
    unknown = backend.estimate(make({"instance_type": "ml.p6.48xlarge"}), {"train": VOLUME})
    assert unknown.usd["training"] is None and "no price is known" in unknown.price_source


def test_a_budget_bounds_the_running_time(make: Make, tmp_path: Path) -> None:
    job = make({"instance_type": "ml.g5.2xlarge"}, budget_usd=3.03)
    assert request.max_runtime_seconds(job) == 7200
    plan = plan_of(job, tmp_path)
    assert created(plan)["StoppingCondition"] == {"MaxRuntimeInSeconds": 7200}
    prepare.check_budget(job, plan)
    given = make({"instance_type": "ml.g5.2xlarge", "max_runtime_seconds": 86400}, budget_usd=3.03)
    with pytest.raises(OverBudget, match=r"36\.36 USD") as refused:
        prepare.check_budget(given, plan_of(given, tmp_path))
    assert "max_runtime_seconds" in str(refused.value.fix)


@pytest.mark.parametrize(
    ("section", "more", "code"),
    [
        ({"role_arn": None}, {}, "MissingValue"),
        ({"s3_uri": None}, {}, "MissingValue"),
        ({"region": None}, {}, "MissingValue"),
        ({"max_wait_seconds": 600}, {}, "UnusedValue"),
        ({"max_wait_seconds": 600, "spot": True}, {}, "OutOfRange"),
        ({"keep_alive_seconds": 60, "spot": True}, {}, "BadRequest"),
        ({"pytorch_version": "2.8"}, {}, "UnusedValue"),
        ({"instance_count": 2}, {"hyperparameters": {"batchSize": 1}}, "GpusIdle"),
        ({"instance_type": "ml.g5.2xlarge"}, {"local": {"fsdp": True}}, "OneProcess"),
        ({"instance_count": 9}, {"hyperparameters": {}}, "GpusIdle"),
        ({"instance_type": "ml.g5.2xlrge"}, {}, "NoSuchInstance"),
        ({"s3_uri": f"s3://my-bucket/{'x' * 1000}"}, {}, "BadRequest"),
        ({"instance_type": "ml.trn1.2xlarge"}, {}, "NoGpu"),
        ({"network_isolation": True}, {"model": "some-org/some-model"}, "NoNetwork"),
    ],
)
def test_each_fault_is_named(
    make: Make, section: dict[str, Any], more: dict[str, Any], code: str
) -> None:
    if "model" in more:
        section = section | {"instance_type": "ml.g5.2xlarge"}
    assert codes(make(section, **more)) == [code]


def test_without_the_sdk_no_image_is_guessed(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "is_sdk_installed", lambda: False)
    assert codes(make({"image_uri": None})) == ["NoImage"]


def test_a_flag_stands_above_the_section_and_the_section_above_bedrocks(
    tmp_path: Path, tiny_model: Path
) -> None:
    path = write_job_file(
        tmp_path, tiny_model, sagemaker=SECTION, bedrock={"region": "us-west-2", "profile": "b"}
    )
    here = request.location_of(load_job(path))
    assert here == {"region": "eu-west-1", "profile": "b", "endpoint_url": None}
    flagged = load_job(path, flags={"bedrock.region": "us-east-1"})
    assert request.location_of(flagged)["region"] == "us-east-1"


def test_what_serves_better_is_said_where_a_source_says_so(make: Make) -> None:
    def closed(alias: str) -> dict[str, Finding]:
        return findings_of(dataclasses.replace(make(), model=catalogue.find_model(alias)))

    nova = closed("nova-lite")
    assert "set an open model" in str(nova["NoLocalModel"].fix)
    assert "serverless" in nova["ServerlessServes"].message
    assert preflight.CUSTOMIZATION_GUIDE in str(nova["ServerlessServes"].fix)
    assert "ServerlessServes" not in closed("titan-text-express")
    techniques = load_service_model("sagemaker").shape_for("CustomizationTechnique").enum
    assert all(name in preflight.SERVERLESS for name in techniques)


def test_flags_are_words_and_mean_the_same(tmp_path: Path, tiny_model: Path) -> None:
    path = write_job_file(tmp_path, tiny_model, sagemaker=SECTION)
    flags = {"sagemaker.spot": "true", "sagemaker.network_isolation": "false"}
    assert load_job(path, flags=flags).spec.sagemaker.spot is True


def test_a_stack_fills_what_is_left_out_and_bedrocks_serves_both(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = {
        "SageMakerRoleArn": ROLE,
        "OutputBucketName": "team-output",
        "Prefix": "cloudft",
        "KeyArn": f"arn:aws:kms:eu-west-1:123456789012:key/{'0' * 36}",
        "SubnetIds": "subnet-1,subnet-2",
        "SecurityGroupIds": "sg-1",
    }
    there: dict[str, dict[str, str]] = {"bare": {}}

    def read(aws: Aws, name: str) -> Stack:
        found = there.get(name, outputs)
        return Stack(name, "arn:x", "UPDATE_COMPLETE", None, found, {}, {}, False, "2026")

    monkeypatch.setattr("cloudft.backends.aws_base.stack_outputs.stacks.describe_stack", read)

    def completed(sagemaker: dict[str, Any], **bedrock: Any) -> LoadedJob:
        section = {"image_uri": SECTION["image_uri"], **sagemaker}
        bedrock = {"region": "eu-west-1", **bedrock}
        path = write_job_file(tmp_path, tiny_model, sagemaker=section, bedrock=bedrock)
        job = load_job(path)
        return SageMakerBackend(Home(tmp_path)).for_job(job).with_stack_defaults(job)

    job = completed({"stack": "team", "vpc": None})
    spec = job.spec.sagemaker
    assert (spec.role_arn, spec.s3_uri) == (ROLE, "s3://team-output/cloudft")
    assert spec.kms_key_id == outputs["KeyArn"] and spec.vpc is None
    assert job.origins["sagemaker.s3_uri"].where == "stack team, OutputBucketName and Prefix"
    other = completed({}, stack="shared").spec.sagemaker
    assert other.vpc and other.vpc.subnet_ids == ("subnet-1", "subnet-2")
    assert other.role_arn == ROLE
    by_value = {"role_arn": ROLE, "s3_uri": "s3://my-bucket/x"}
    assert completed(by_value, stack="shared").spec.sagemaker.kms_key_id is None
    with pytest.raises(CheckFailed) as refused:
        completed({"stack": "bare"})
    [finding] = refused.value.findings
    assert (finding.code, finding.field) == ("NoSuchOutput", "sagemaker.stack")
    assert "SageMakerRoleArn" in finding.message


def test_what_was_billed_stands_in_the_place_of_the_bound(make: Make, tmp_path: Path) -> None:
    plan = plan_of(make(), tmp_path)
    record = {"usd": {"training": 27.048}, "atMost": True}
    job = lifecycle.Job(SimpleNamespace(estimate=record), states_of("InProgress"))  # type: ignore[arg-type]
    assert to_json(plan.estimate)["atMost"] is True
    assert job._cost() == {"usd": 27.048, "estimated": True, "atMost": True}
    ended = dataclasses.replace(job, state=states_of("Completed"))
    assert ended._cost() == {"usd": 1.0, "estimated": False}


def states_of(status: str) -> JobState:
    moment = datetime(2026, 1, 1, tzinfo=timezone.utc)
    answer = {
        "TrainingJobArn": "arn:x",
        "TrainingJobStatus": status,
        "CreationTime": moment,
        "LastModifiedTime": moment,
        "BillableTimeInSeconds": 1800,
        "HyperParameters": {"cloudft-job": "a-0123abcd"},
    }
    return states.to_job_state(answer, usd_per_hour=2.0)


def test_a_state_has_the_billed_time_and_the_reason_of_its_end() -> None:
    moment = datetime(2026, 1, 1, tzinfo=timezone.utc)
    answer = {
        "TrainingJobArn": "arn:x",
        "TrainingJobStatus": "Stopped",
        "SecondaryStatus": "MaxRuntimeExceeded",
        "CreationTime": moment,
        "BillableTimeInSeconds": 1800,
        "HyperParameters": {"cloudft-job": "a-0123abcd"},
    }
    trainer_state = TrainerState(
        TrainerStatusDetails(training_details="InProgress"), summary={"device": "cuda"}
    )
    state = states.to_job_state(answer, trainer_state, usd_per_hour=2.0)
    assert state.summary["usd"] == 1.0 and state.summary["device"] == "cuda"
    assert "resume" in str(state.failure_message)
    assert state.status_details.training_details == "Stopped"
