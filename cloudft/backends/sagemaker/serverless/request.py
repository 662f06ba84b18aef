"""Build the calls of a serverless job. No side effects; deterministic.

cloudft builds CreateTrainingJob itself, as for its own trainer. The SageMaker SDK's trainers
(sagemaker-train 1.27.0) can't: they name each job by the time, so that a retry is a second job;
they make a bucket, a folder and an MLflow app where none is; and they send by themselves. The
members and their values are those that the SDK sends (tests/unit/sagemaker/sdk_requests.json).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from cloudft.aws.s3 import s3_uri
from cloudft.aws.tags import PLAN_TAG, with_cloudft_tags
from cloudft.backends.aws_base import requests
from cloudft.backends.aws_base.api_call import (
    PLAN_FILE,
    ApiCall,
    PlannedCalls,
    put_file,
    put_generated,
)
from cloudft.backends.base import StagedJob
from cloudft.backends.sagemaker import request
from cloudft.backends.sagemaker.job_section import Serverless
from cloudft.catalogue import ServerlessModel, find_serverless_model, load_serverless
from cloudft.spec.load import LoadedJob
from cloudft.types import StagedFile, job_id

HUB = "SageMakerPublicHub"
TECHNIQUE = "SFT"
"""The only technique that cloudft starts: the one that FINE_TUNING is."""
RECIPE_NAMES = {
    "epochCount": "max_epochs",
    "batchSize": "global_batch_size",
    "learningRate": "learning_rate",
}
"""Hyperparameter of the job file -> its name in SageMaker's recipes (SageMaker developer guide,
"SFT", 2026-10)."""
MERGE = "merge_weights"
"""Hyperparameter that makes an adapter's job write merged weights too, which can be imported."""
CONVERSE, PREFIX = "Converse", "S3Prefix"
"""S3DataType of Amazon Nova's records, and of all others (sagemaker-train 1.27.0)."""
PASSED_FORMATS = ("prompt-completion",)
"""Canonical formats that open weights are tuned with as they are: `prompt`, `completion` and
`system` (SageMaker developer guide, "SFT", format 2). Others are sent as `messages`."""
CONVERTED = "messages:"
"""Begins the name of an upload's content: the role's records as `messages`."""


def serverless_of(job: LoadedJob) -> Serverless:
    """Return the job's section sagemaker.serverless."""
    section = job.spec.sagemaker.serverless
    assert isinstance(section, Serverless)
    return section


def hub_model(job: LoadedJob) -> ServerlessModel | None:
    """Return the catalogue's entry of the hub's model; None for one that it does not list."""
    name = serverless_of(job).model
    if name is None:
        return find_serverless_model(job.model)
    return load_serverless().by_hub.get(name)


def hub_content(job: LoadedJob) -> str | None:
    """Return the name of the model's content in the hub; None where none is known."""
    listed = hub_model(job)
    return serverless_of(job).model or (listed.hub if listed else None)


def is_nova(job: LoadedJob) -> bool:
    """Return whether the hub's model is an Amazon Nova model."""
    return "nova" in (hub_content(job) or "").lower()


def resolve_hyperparameters(job: LoadedJob) -> dict[str, str]:
    """Return the request's HyperParameters, by the recipe's names; all values are text."""
    section = serverless_of(job)
    given: dict[str, Any] = {
        RECIPE_NAMES[name]: value
        for name, value in job.spec.hyperparameters.items()
        if name in RECIPE_NAMES
    }
    if section.method == "lora" and not is_nova(job):
        given[MERGE] = True
    return {name: _as_text(value) for name, value in {**given, **section.hyperparameters}.items()}


def _as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def uses_messages(staged: StagedJob) -> bool:
    """Return whether the records are sent as `messages`, not as they are staged."""
    return not is_nova(staged.job) and staged.manifest.format not in PASSED_FORMATS


def staged_files(staged: StagedJob) -> dict[str, StagedFile]:
    """Return the staged files that are sent, by role."""
    return requests.uploaded_files(staged.manifest)


def _data_key(staged: StagedJob, role: str, file: StagedFile) -> str:
    """Return the key of a role's file: its folder follows from the content."""
    prefix = request.s3_prefix(staged.job)[1]
    digest = file.sha256
    if uses_messages(staged):
        digest = hashlib.sha256(f"messages {file.sha256}".encode()).hexdigest()
    return f"{prefix}data/{digest}/{role}.jsonl"


def model_package_group_arn(job: LoadedJob) -> str:
    """Return the ARN of the group: in the role's account and the job's Region."""
    group: str = serverless_of(job).model_package_group
    if group.startswith("arn:"):
        return group
    _, partition, _, _, account, *_ = str(job.spec.sagemaker.role_arn).split(":")
    region = request.location_of(job)["region"]
    return f"arn:{partition}:sagemaker:{region}:{account}:model-package-group/{group}"


def base_model_arn(job: LoadedJob) -> str:
    """Return the ARN of the model in the public hub. SageMaker takes its newest version."""
    _, partition, *_ = str(job.spec.sagemaker.role_arn).split(":")
    region = request.location_of(job)["region"]
    return f"arn:{partition}:sagemaker:{region}:aws:hub-content/{HUB}/Model/{hub_content(job)}"


def _serverless_config(job: LoadedJob) -> dict[str, object]:
    section = serverless_of(job)
    config: dict[str, object] = {
        "BaseModelArn": base_model_arn(job),
        "JobType": "FineTuning",
        "CustomizationTechnique": TECHNIQUE,
        "AcceptEula": section.accept_eula,
    }
    if section.method == "lora":
        config["Peft"] = "LORA"
    if section.sequence_length is not None:
        config["SequenceLength"] = section.sequence_length
    return config


def _create_parameters(staged: StagedJob, name: str, token: str) -> dict[str, Any]:
    job, spec = staged.job, staged.job.spec.sagemaker
    bucket, prefix = request.s3_prefix(job)
    tags = with_cloudft_tags(job.spec.tags, name, token)
    parameters: dict[str, Any] = {
        "TrainingJobName": request.training_job_name(name),
        "RoleArn": spec.role_arn,
        "HyperParameters": resolve_hyperparameters(job),
        "InputDataConfig": list(_channels(staged)),
        # Files, not an archive: what is imported is read in place.
        "OutputDataConfig": {
            "S3OutputPath": f"s3://{bucket}/{prefix}jobs/{name}/output/",
            "CompressionType": "NONE",
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": spec.max_runtime_seconds or request.DAY_S},
        "ServerlessJobConfig": _serverless_config(job),
        "ModelPackageConfig": {"ModelPackageGroupArn": model_package_group_arn(job)},
        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
    }
    if spec.kms_key_id:
        parameters["OutputDataConfig"]["KmsKeyId"] = spec.kms_key_id
    if spec.vpc:
        parameters["VpcConfig"] = {
            "Subnets": list(spec.vpc.subnet_ids),
            "SecurityGroupIds": list(spec.vpc.security_group_ids),
        }
    if (mlflow := serverless_of(job).mlflow_arn) is not None:
        named = {"MlflowExperimentName": job.spec.name, "MlflowRunName": name}
        parameters["MlflowConfig"] = {"MlflowResourceArn": mlflow, **named}
    return parameters


def _channels(staged: StagedJob) -> Iterator[dict[str, object]]:
    bucket, _ = request.s3_prefix(staged.job)
    kind = CONVERSE if is_nova(staged.job) else PREFIX
    for role, file in staged_files(staged).items():
        location = {
            "S3DataType": kind,
            "S3Uri": s3_uri(bucket, _data_key(staged, role, file)),
            "S3DataDistributionType": "FullyReplicated",
        }
        yield {"ChannelName": role, "DataSource": {"S3DataSource": location}}


def request_token(staged: StagedJob) -> str:
    """Return the name of the request: 32 hex digits that follow from all of it and of the data."""
    content = {
        "request": _create_parameters(staged, "NAME", "TOKEN"),
        "owner": request.expected_bucket_owner(staged.job),
        "s3Key": staged.job.spec.sagemaker.s3_kms_key_id,
    }
    return requests.request_token(staged, request.location_of(staged.job), content)


def create_request(staged: StagedJob) -> dict[str, Any]:
    """Return the parameters of CreateTrainingJob. cloudft's marks are tags.

    A recipe's hyperparameters are SageMaker's own, so the marks can't be among them.
    """
    token = request_token(staged)
    parameters = _create_parameters(staged, job_id(staged.job.spec.name, token), token)
    mark = {"Key": PLAN_TAG, "Value": _plan_digest(staged, token)}
    return {**parameters, "Tags": [*parameters["Tags"], mark]}


def hyperparameter_numbers(job: LoadedJob) -> dict[str, int | float]:
    """Return the job file's own hyperparameters that are sent."""
    given: Mapping[str, Any] = job.spec.hyperparameters
    return {name: value for name, value in given.items() if name in RECIPE_NAMES}


def _plan_digest(staged: StagedJob, token: str) -> str:
    covered = {"hyperParameters": hyperparameter_numbers(staged.job)}
    return requests.plan_digest("sagemaker", staged, token, covered)


def api_calls(staged: StagedJob) -> PlannedCalls:
    """Return every call that changes something: the data, the plan, the job."""
    job, parameters = staged.job, create_request(staged)
    bucket, prefix = request.s3_prefix(job)
    settings = requests.object_settings(
        request.expected_bucket_owner(job), job.spec.sagemaker.s3_kms_key_id
    )
    name = job_id(job.spec.name, request_token(staged))
    return PlannedCalls(
        uploads=tuple(_uploads(staged, bucket, settings)),
        plan_file=_generated(bucket, f"{prefix}jobs/{name}/{PLAN_FILE}", "plan", settings),
        create=ApiCall(service="sagemaker", operation=request.CREATE, parameters=parameters),
    )


def _uploads(staged: StagedJob, bucket: str, settings: Mapping[str, str]) -> Iterator[ApiCall]:
    for role, file in staged_files(staged).items():
        key = _data_key(staged, role, file)
        if uses_messages(staged):
            yield _generated(bucket, key, f"{CONVERTED}{role}", settings)
        else:
            put = put_file(bucket, key, file.name, (file.sha256, file.bytes), settings)
            yield ApiCall(
                service=put.service,
                operation=put.operation,
                unless=put.unless,
                file=role,
                parameters=put.parameters,
            )


def _generated(bucket: str, key: str, content: str, settings: Mapping[str, str]) -> ApiCall:
    put = put_generated(bucket, key, content, settings)
    return ApiCall(
        service=put.service, operation=put.operation, parameters=put.parameters, content=content
    )
