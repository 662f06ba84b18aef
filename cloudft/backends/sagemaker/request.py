"""Build a job's calls of AWS. No side effects but reading the weights' digests; deterministic."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from cloudft.aws.request_validation import load_service_model
from cloudft.aws.tags import with_cloudft_tags
from cloudft.backends.aws_base import requests
from cloudft.backends.aws_base.api_call import (
    PLAN_FILE,
    ApiCall,
    PlannedCalls,
    put_file,
    put_generated,
)
from cloudft.backends.aws_base.grader_package import GRADER_FILE
from cloudft.backends.base import StagedJob
from cloudft.backends.sagemaker import instances, trainer_archive
from cloudft.backends.sagemaker.logs import LINE_MARKER
from cloudft.backends.sagemaker.weights import WeightFile
from cloudft.spec.load import LoadedJob
from cloudft.types import StagedFile, job_id

CREATE = "create_training_job"
CONTAINER_ROOT = "/opt/ml"
"""The root folder of SageMaker's containers."""
JOB_KEY, TOKEN_KEY, PLAN_KEY = "cloudft-job", "cloudft-token", "cloudft-plan"
"""Keys of the job's HyperParameters, which every description has: the job's id, its whole token,
and the digest of its plan."""
GRADER_ROLE = "grader"
"""Key of the grader's file in a plan."""
NAME_MAX, RESUME_SUFFIX_LENGTH = 63, 4
"""The longest TrainingJobName, and the length of a resumed job's `-r12`."""
TRAINING_JOB_NAME = re.compile(r"(?P<base>.+-[0-9a-f]{8})(?:-r(?P<number>[0-9]{1,2}))?")
"""The form of cloudft's names. Others may have it too: the keys above are the proof."""
DAY_S = 86_400
NUMBER = "[0-9.eE+-]+"
METRIC_DEFINITIONS = [
    {
        "Name": f"{split}:loss",
        "Regex": rf'{LINE_MARKER}metric .*"split": "{split}", "loss": ({NUMBER})',
    }
    for split in ("train", "validation")
]
"""For the console's curves only: `metrics` reads the log, point by point."""


@dataclass(frozen=True)
class TrainingJobInputs:
    """The inputs of a job's request: the staged job, the trainer's job.json, weights, image."""

    staged: StagedJob
    trainer: Mapping[str, Any]
    weights: tuple[WeightFile, ...]
    image: str

    @property
    def job(self) -> LoadedJob:
        """Return the job."""
        return self.staged.job

    @property
    def files(self) -> dict[str, StagedFile]:
        """Return the staged files that the job reads, by role."""
        return requests.uploaded_files(self.staged.manifest)


def location_of(job: LoadedJob) -> dict[str, str | None]:
    """Return the job's location; what the section leaves out is the section bedrock's.

    A flag (--region, --profile, --endpoint-url: they set bedrock's) takes precedence over both.
    """
    own, other = job.spec.sagemaker, job.spec.bedrock
    location = {}
    for name in ("region", "profile", "endpoint_url"):
        origin = job.origins.get(f"bedrock.{name}")
        by_flag = origin is not None and origin.kind == "flag"
        location[name] = (None if by_flag else getattr(own, name)) or getattr(other, name)
    return location


def s3_prefix(job: LoadedJob) -> tuple[str, str]:
    """Return bucket and key prefix of the job file's s3_uri."""
    return requests.split_prefix(job.spec.sagemaker.s3_uri)


def expected_bucket_owner(job: LoadedJob) -> str | None:
    """Return the account that the bucket must belong to."""
    return requests.expected_owner(job.spec.sagemaker.bucket_owner, job.spec.sagemaker.role_arn)


def training_job_name(identifier: str) -> str:
    """Return the training job's name of a job id: letters, digits, single hyphens. Idempotent."""
    name, _, token = identifier.rpartition("-")
    cleaned = re.sub(r"[^0-9a-zA-Z]+", "-", name).strip("-")
    return (
        f"{cleaned[: NAME_MAX - 9 - RESUME_SUFFIX_LENGTH].rstrip('-')}-{token}"
        if cleaned
        else identifier
    )


def max_runtime_seconds(job: LoadedJob) -> int:
    """Return the time limit: the job file's, what the budget pays for, or a day."""
    spec = job.spec.sagemaker
    if spec.max_runtime_seconds is not None:
        return spec.max_runtime_seconds
    price = usd_per_hour(job)
    if job.spec.budget_usd is None or not price:
        return DAY_S
    return max(60, min(DAY_S, int(job.spec.budget_usd / price * 3600)))


def usd_per_hour(job: LoadedJob) -> float | None:
    """Return the price of an hour of all instances, on demand; None where no price is known."""
    price = instances.get_hourly_price(job)
    return None if price is None else price.usd * job.spec.sagemaker.instance_count


def container_request(inputs: TrainingJobInputs) -> dict[str, Any]:
    """Return job.json for the container: only uploaded data, its own device, uploaded weights."""
    job_json = {name: value for name, value in inputs.trainer.items() if name != "id"}
    data = {role: job_json["data"][role] for role in inputs.files}
    model = dict(job_json["model"])
    if inputs.weights:
        model["weights"] = [{"kind": "folder", "path": "model"}]
    return job_json | {"data": data, "model": model, "device": "auto"}


def request_token(inputs: TrainingJobInputs) -> str:
    """Return the name of the request: 32 hex digits that follow from all of it and of the data."""
    content = {
        "job": container_request(inputs),
        "request": _create_parameters(inputs, "NAME", "TOKEN"),
        "owner": expected_bucket_owner(inputs.job),
        "s3Key": inputs.job.spec.sagemaker.s3_kms_key_id,
    }
    return requests.request_token(inputs.staged, location_of(inputs.job), content)


def create_request(inputs: TrainingJobInputs) -> dict[str, Any]:
    """Return the parameters of CreateTrainingJob."""
    name = request_token(inputs)
    parameters = _create_parameters(inputs, job_id(inputs.job.spec.name, name), name)
    mark = {PLAN_KEY: _plan_digest(inputs, name)}  # not of the token: older builds had none
    return parameters | {"HyperParameters": parameters["HyperParameters"] | mark}


def local_request(inputs: TrainingJobInputs, job_id: str) -> dict[str, Any]:
    """Return job.json for this machine, once the artifacts are here."""
    return {**inputs.trainer, "id": job_id}


def _plan_digest(inputs: TrainingJobInputs, token: str) -> str:
    """Return the plan's digest, which the job carries among its hyperparameters."""
    covered = {
        "hyperParameters": dict(inputs.trainer["hyperParameters"]),
        "home": local_request(inputs, job_id(inputs.job.spec.name, token)),
    }
    return requests.plan_digest("sagemaker", inputs.staged, token, covered)


def _create_parameters(inputs: TrainingJobInputs, name: str, token: str) -> dict[str, Any]:
    job, spec = inputs.job, inputs.job.spec.sagemaker
    bucket, prefix = s3_prefix(job)
    job_folder = f"s3://{bucket}/{prefix}jobs/{name}"
    tags = with_cloudft_tags(job.spec.tags, name, token)
    parameters: dict[str, Any] = {
        "TrainingJobName": training_job_name(name),
        "RoleArn": spec.role_arn,
        "AlgorithmSpecification": {
            "TrainingImage": inputs.image,
            "TrainingInputMode": "FastFile",
            "ContainerEntrypoint": trainer_archive.CONTAINER_ENTRYPOINT,
            "ContainerArguments": trainer_archive.container_arguments(CONTAINER_ROOT),
            "MetricDefinitions": METRIC_DEFINITIONS,
        },
        "HyperParameters": {
            **{k: str(v) for k, v in inputs.trainer["hyperParameters"].items()},
            JOB_KEY: name,
            TOKEN_KEY: token,
        },
        "InputDataConfig": list(_channels(inputs, f"{job_folder}/input/")),
        "OutputDataConfig": {"S3OutputPath": f"{job_folder}/output/"},
        "CheckpointConfig": {
            "S3Uri": f"{job_folder}/checkpoints/",
            "LocalPath": f"{CONTAINER_ROOT}/checkpoints",
        },
        "ResourceConfig": _resources(job),
        "StoppingCondition": {"MaxRuntimeInSeconds": max_runtime_seconds(job)},
        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
        "EnableManagedSpotTraining": spec.spot,
    }
    if spec.spot:
        longest = spec.max_wait_seconds or 2 * max_runtime_seconds(job)
        parameters["StoppingCondition"]["MaxWaitTimeInSeconds"] = longest
    if spec.kms_key_id:
        parameters["OutputDataConfig"]["KmsKeyId"] = spec.kms_key_id
    if spec.network_isolation:
        parameters["EnableNetworkIsolation"] = True
    if spec.vpc:
        parameters["VpcConfig"] = {
            "Subnets": list(spec.vpc.subnet_ids),
            "SecurityGroupIds": list(spec.vpc.security_group_ids),
        }
    return parameters


def _resources(job: LoadedJob) -> dict[str, object]:
    spec = job.spec.sagemaker
    name = instances.choose_instance_type(job)
    instance = instances.find_instance(name)
    resources: dict[str, object] = {
        "InstanceType": name,
        "InstanceCount": spec.instance_count,
        "VolumeSizeInGB": instances.choose_volume_gb(job),
    }
    if spec.keep_alive_seconds:
        resources["KeepAlivePeriodInSeconds"] = spec.keep_alive_seconds
    if spec.kms_key_id and not (instance and instance.nvme):
        resources["VolumeKmsKeyId"] = spec.kms_key_id
    return resources


def _channels(inputs: TrainingJobInputs, job_inputs: str) -> Iterator[dict[str, object]]:
    """Yield the input channels. Data streams from S3; weights are files, to be memory-mapped."""
    bucket, prefix = s3_prefix(inputs.job)
    root = f"s3://{bucket}/{prefix}"
    yield _channel("code", f"{root}code/{trainer_archive.build_archive().sha256}/", "File")
    yield _channel("job", job_inputs, "File")
    for role, file in inputs.files.items():
        yield _channel(role, f"{root}data/{file.sha256}/", "FastFile")
    if inputs.weights:
        yield _channel("model", f"{root}models/{weights_digest(inputs)}/", "File")


def _channel(name: str, uri: str, mode: str) -> dict[str, object]:
    location = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": location}, "InputMode": mode}


def weights_digest(inputs: TrainingJobInputs) -> str:
    """Return the name of the weights that are sent."""
    return requests.content_digest({file.name: file.sha256 for file in inputs.weights})


def api_calls(inputs: TrainingJobInputs) -> PlannedCalls:
    """Return every call that changes something, as `--dry-run` shows it."""
    parameters = create_request(inputs)
    bucket, prefix = s3_prefix(inputs.job)
    name = parameters["HyperParameters"][JOB_KEY]
    code = trainer_archive.build_archive()
    settings = requests.object_settings(
        expected_bucket_owner(inputs.job), inputs.job.spec.sagemaker.s3_kms_key_id
    )
    models = f"{prefix}models/{weights_digest(inputs)}/"
    files: list[tuple[str, str, StagedFile | WeightFile]] = [
        *(
            (role, f"{prefix}data/{file.sha256}/{file.name}", file)
            for role, file in inputs.files.items()
        ),
        *((file.role, f"{models}{file.name}", file) for file in inputs.weights),
    ]
    uploads = [
        msgspec.structs.replace(
            put_file(bucket, key, file.name, (file.sha256, file.bytes), settings), file=role
        )
        for role, key, file in files
    ]
    folder = f"{prefix}jobs/{name}/"
    if (grader := inputs.staged.grader) is not None:
        content = (grader.sha256, len(grader.content))
        call = put_file(bucket, f"{folder}input/{GRADER_FILE}", GRADER_FILE, content, settings)
        uploads.append(msgspec.structs.replace(call, file=GRADER_ROLE))
    generated = {
        "code": f"{prefix}code/{code.sha256}/{trainer_archive.ARCHIVE}",
        "job": f"{folder}input/job.json",
        "manifest": f"{folder}input/manifest.json",
        "plan": f"{folder}{PLAN_FILE}",
    }
    *others, plan_file = (
        msgspec.structs.replace(put_generated(bucket, key, content, settings), content=content)
        for content, key in generated.items()
    )
    create = ApiCall(service="sagemaker", operation=CREATE, parameters=parameters)
    return PlannedCalls((*uploads, *others), plan_file, create)


def resume_parameters(first: Mapping[str, object], number: int) -> dict[str, object]:
    """Return the request of a job that resumes from the checkpoints of an earlier one."""
    return {**first, "TrainingJobName": f"{first['TrainingJobName']}-r{number}"}


def parameters_from_description(
    description: Mapping[str, Any], tags: Mapping[str, str]
) -> dict[str, Any]:
    """Return the request that created a job, from DescribeTrainingJob's response, with these tags.

    Both have the same members (botocore 1.44.5), except the tags, which no description has.
    """
    members = (
        load_service_model("sagemaker").operation_model("CreateTrainingJob").input_shape.members
    )
    job_parameters = description["HyperParameters"]
    all_tags = with_cloudft_tags(tags, job_parameters[JOB_KEY], job_parameters[TOKEN_KEY])
    parameters = {name: description[name] for name in members if description.get(name) is not None}
    return parameters | {"Tags": [{"Key": key, "Value": value} for key, value in all_tags.items()]}


def plan_files(inputs: TrainingJobInputs) -> dict[str, Path]:
    """Return the plan's files: those that are uploaded, by role."""
    staged = {role: inputs.staged.folder / file.name for role, file in inputs.files.items()}
    grader = inputs.staged.grader
    own = {} if grader is None else {GRADER_ROLE: grader.path}
    return staged | own | {file.role: file.path for file in inputs.weights}


def file_digests(inputs: TrainingJobInputs) -> dict[str, str]:
    """Return the digests of the plan's files that are not in its manifest, by role."""
    grader = inputs.staged.grader
    own = {} if grader is None else {GRADER_ROLE: grader.sha256}
    return own | {file.role: file.sha256 for file in inputs.weights}
