"""Build the calls that create a job. Pure: one job gives the same calls on any machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import cast

from cloudft import catalogue
from cloudft.aws import tags as tag_names
from cloudft.aws.s3 import s3_uri, split_s3_uri
from cloudft.aws.tags import Tag, to_tag_list
from cloudft.backends.aws_base import requests
from cloudft.backends.aws_base.api_call import (
    PLAN_FILE,
    ApiCall,
    PlannedCalls,
    put_file,
    put_generated,
)
from cloudft.backends.base import StagedJob
from cloudft.backends.bedrock import customizations
from cloudft.backends.bedrock.api_shapes import CreateCustomizationJob, S3Uri, TrainingData
from cloudft.catalogue import CUSTOMIZATION_TYPES
from cloudft.spec.load import LoadedJob
from cloudft.types import StagedFile, is_validation_role, job_id

TAG_JOB, TAG_TOKEN = tag_names.JOB_TAG, tag_names.TOKEN_TAG
JOB_NAME = re.compile(r".*-[0-9a-f]{8}")
"""Form of the names of cloudft's jobs. Others may have that form too: the tag is the proof."""
STAGED_URI = re.compile(r"s3://.+/data/[0-9a-f]{64}/[^/]+\.jsonl")
"""Form of the URIs of staged data."""
CREATE = "create_model_customization_job"
NUMBER = r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?"


@dataclass(frozen=True)
class StagedObject:
    """A staged file and its S3 destination."""

    role: str
    file: StagedFile
    bucket: str
    key: str

    @property
    def uri(self) -> str:
        """Return `s3://BUCKET/KEY`."""
        return s3_uri(self.bucket, self.key)


def location_of(job: LoadedJob) -> dict[str, str | None]:
    """Return Region, profile and endpoint of the job."""
    spec = job.spec.bedrock
    return {"region": spec.region, "profile": spec.profile, "endpoint_url": spec.endpoint_url}


def s3_prefix(job: LoadedJob) -> tuple[str, str]:
    """Return bucket and key prefix of the job file's s3_uri."""
    return requests.split_prefix(job.spec.bedrock.s3_uri)


def output_s3_prefix(job: LoadedJob) -> tuple[str, str]:
    """Return bucket and key prefix of jobs' output: the data's unless output_s3_uri is set."""
    return requests.split_prefix(job.spec.bedrock.output_s3_uri or job.spec.bedrock.s3_uri)


def expected_bucket_owner(job: LoadedJob) -> str | None:
    """Return the account that the buckets must belong to."""
    return requests.expected_owner(job.spec.bedrock.bucket_owner, job.spec.bedrock.role_arn)


def staged_objects(staged: StagedJob) -> list[StagedObject]:
    """Return the staged files that the job reads; each key contains the digest of its content."""
    bucket, prefix = s3_prefix(staged.job)
    return [
        StagedObject(role, file, bucket, f"{prefix}data/{file.sha256}/{file.name}")
        for role, file in requests.uploaded_files(staged.manifest).items()
        if role == "train" or not _ignores_validation(staged.job)
    ]


def _ignores_validation(job: LoadedJob) -> bool:
    limits = job.model.limits.get(job.spec.customization_type)
    return limits is not None and limits.ignores_validation


def resolve_hyperparameters(job: LoadedJob) -> dict[str, int | float]:
    """Return the hyperparameters to send: the job's own, and the documented defaults.

    A default that is only assumed is not sent: the service knows its own.
    """
    known = job.model.hyperparameters.items()
    values = {name: row.default for name, row in known if not row.assumed}
    given = dict(job.spec.hyperparameters)
    if job.spec.early_stopping:
        given["earlyStoppingPatience"] = job.spec.early_stopping.patience
        given["earlyStoppingThreshold"] = job.spec.early_stopping.threshold
    return values | given


def count_epochs(job: LoadedJob) -> int:
    """Return the number of epochs."""
    row = job.model.hyperparameters.get("epochCount")
    default = row.default if row else 1
    return int(resolve_hyperparameters(job).get("epochCount", default))


def to_api_text(value: int | float) -> str:
    """Return a hyperparameter as the API takes it: text, without an exponent."""
    return str(value) if isinstance(value, int) else f"{Decimal(repr(value)):f}"


def parse_hyperparameters(sent: Mapping[str, str] | None) -> dict[str, int | float] | None:
    """Return the numbers in hyperparameters that `to_api_text` wrote; None where there are none."""
    if not sent:
        return None
    return {name: _number(text) for name, text in sent.items() if re.fullmatch(NUMBER, text)}


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("-").isdecimal() else float(text)


def base_model_alias(given: str, arn: str | None) -> str | None:
    """Return a plan's name of the base model where it means the model of `arn`; else `arn`."""
    if arn is None:
        return None
    model = catalogue.find_catalogue_model(given)
    return given if model is not None and model is catalogue.find_catalogue_model(arn) else arn


def custom_model_name(name: str) -> str:
    """Return a custom model's name for a job's: no dot, no plus, no two separators in a row."""
    return re.sub(r"[^0-9a-zA-Z]+", "-", name).strip("-")


def request_token(staged: StagedJob) -> str:
    """Return the name of the request: 32 hex digits that follow from all of it and of the data."""
    content = {
        "request": _create_parameters(staged, "NAME", "TOKEN"),
        "owner": expected_bucket_owner(staged.job),
        "s3Key": staged.job.spec.bedrock.s3_kms_key_id,
    }
    return requests.request_token(staged, location_of(staged.job), content)


def create_request(staged: StagedJob) -> CreateCustomizationJob:
    """Return the parameters of CreateModelCustomizationJob."""
    token = request_token(staged)
    parameters = _create_parameters(staged, job_id(staged.job.spec.name, token), token)
    # The token does not cover this tag: older builds had none, and their jobs must be found.
    digest_tag: Tag = {"key": tag_names.PLAN_TAG, "value": plan_digest(staged, token)}
    if "jobTags" in parameters:
        parameters["jobTags"] = [*parameters["jobTags"], digest_tag]
    if "customModelTags" in parameters:
        parameters["customModelTags"] = [*parameters["customModelTags"], digest_tag]
    return parameters


def plan_digest(staged: StagedJob, token: str) -> str:
    """Return the plan's digest, which the job carries as a tag."""
    covered = {"hyperParameters": resolve_hyperparameters(staged.job)}
    return requests.plan_digest("bedrock", staged, token, covered)


def _create_parameters(staged: StagedJob, name: str, client_token: str) -> CreateCustomizationJob:
    """Return the parameters that the token covers, with this name and this token."""
    job, spec = staged.job, staged.job.spec.bedrock
    bucket, prefix = output_s3_prefix(job)
    by_role = {item.role: item.uri for item in staged_objects(staged)}
    tags = to_tag_list(tag_names.with_cloudft_tags(job.spec.tags, name, client_token))
    request: CreateCustomizationJob = {
        "jobName": name,
        "customModelName": spec.custom_model_name or custom_model_name(name),
        "roleArn": spec.role_arn,
        "clientRequestToken": client_token,
        "baseModelIdentifier": base_model_identifier(job),
        "customizationType": job.spec.customization_type,
        "hyperParameters": {k: to_api_text(v) for k, v in resolve_hyperparameters(job).items()},
        "trainingDataConfig": _training_data(job, by_role),
        "outputDataConfig": {"s3Uri": f"s3://{bucket}/{prefix}jobs/{name}/output/"},
        "jobTags": tags,
        "customModelTags": tags,
    }
    if CUSTOMIZATION_TYPES[job.spec.customization_type].has_own_hyperparameters:
        del request["hyperParameters"]
    if config := customizations.build_config(job):
        request["customizationConfig"] = config
    validators: list[S3Uri] = [
        {"s3Uri": uri} for role, uri in by_role.items() if is_validation_role(role)
    ]
    if validators:
        request["validationDataConfig"] = {"validators": validators}
    if spec.kms_key_id:
        request["customModelKmsKeyId"] = spec.kms_key_id
    if spec.vpc:
        request["vpcConfig"] = {
            "subnetIds": list(spec.vpc.subnet_ids),
            "securityGroupIds": list(spec.vpc.security_group_ids),
        }
    # What the job file has under bedrock.request wins: members that cloudft does not know, too.
    return cast("CreateCustomizationJob", {**request, **spec.request})


def _training_data(job: LoadedJob, by_role: Mapping[str, str]) -> TrainingData:
    """Return trainingDataConfig: the staged file, or the logs, which are read where they are."""
    logs = job.spec.data.invocation_logs
    if logs is None:
        return {"s3Uri": by_role["train"]}
    return {"invocationLogsConfig": logs.to_api()}


def base_model_identifier(job: LoadedJob) -> str:
    """Return baseModelIdentifier: an ARN as the job file has it, else the customization id.

    An inference profile can't be customized: it stands for its model.
    """
    given = job.spec.base_model
    if given.startswith("arn:") and catalogue.parse_profile(given) is None:
        return given
    return job.model.bedrock_id or given


def api_calls(staged: StagedJob) -> PlannedCalls:
    """Return every call that changes something, as `--dry-run` shows it."""
    job, parameters = staged.job, create_request(staged)
    settings = requests.object_settings(expected_bucket_owner(job), job.spec.bedrock.s3_kms_key_id)
    bucket, output = output_location(parameters["outputDataConfig"])
    plan_key = output.removesuffix("output/") + PLAN_FILE
    return PlannedCalls(
        uploads=tuple(
            put_file(o.bucket, o.key, o.file.name, (o.file.sha256, o.file.bytes), settings)
            for o in staged_objects(staged)
        ),
        plan_file=put_generated(bucket, plan_key, "plan", settings),
        create=ApiCall(service="bedrock", operation=CREATE, parameters=dict(parameters)),
    )


def output_location(output: S3Uri) -> tuple[str, str]:
    """Return bucket and key prefix of a job's output, from its outputDataConfig."""
    return split_s3_uri(output["s3Uri"])
