"""Build the calls that create an import. Pure: one model gives the same calls on any machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cloudft.aws.s3 import s3_uri
from cloudft.aws.tags import PLAN_TAG, Tag, to_tag_list, with_cloudft_tags
from cloudft.backends.aws_base import requests
from cloudft.backends.aws_base.api_call import (
    PLAN_FILE,
    ApiCall,
    PlannedCalls,
    put_file,
    put_generated,
)
from cloudft.backends.base import StagedJob
from cloudft.backends.bedrock import request
from cloudft.backends.bedrock.api_shapes import CreateImportJob
from cloudft.spec.load import LoadedJob
from cloudft.types import StagedFile, job_id

CREATE_OPERATION = "create_model_import_job"
MODELS_PREFIX = "imports/"
"""Prefix of models below the job file's s3_uri; each has the digest of its files."""


@dataclass(frozen=True)
class MergedJob(StagedJob):
    """A trained job with its merged model in `folder`; `files` are those sent to Bedrock."""

    files: Mapping[str, StagedFile] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredModelJob(StagedJob):
    """A model that lies in S3 already, in the folder `uri`; `etags` has those of its files.

    Nothing is uploaded, and nothing is written to the folder.
    """

    uri: str = ""
    etags: Mapping[str, str] = field(default_factory=dict)


ImportableJob = MergedJob | StoredModelJob


def import_role(job: LoadedJob) -> str | None:
    """Return the role that Bedrock assumes to read the model."""
    return job.spec.bedrock.import_role_arn or job.spec.bedrock.role_arn


def model_digest(files: Mapping[str, StagedFile]) -> str:
    """Return the name of the whole model, which follows from every file's name and content."""
    return requests.content_digest({name: file.sha256 for name, file in sorted(files.items())})


def model_uri(importable: ImportableJob) -> str:
    """Return the folder in S3 that Bedrock reads."""
    if isinstance(importable, StoredModelJob):
        return importable.uri
    return s3_uri(*model_location(importable))


def model_location(merged: MergedJob) -> tuple[str, str]:
    """Return bucket and key prefix of the model's files in S3."""
    bucket, prefix = request.s3_prefix(merged.job)
    return bucket, f"{prefix}{MODELS_PREFIX}{model_digest(merged.files)}/"


def request_token(merged: ImportableJob) -> str:
    """Return the name of the request: 32 hex digits that follow from all of it and of the model."""
    content: dict[str, object] = {
        "request": _create_parameters(merged, "NAME", "TOKEN"),
        "owner": request.expected_bucket_owner(merged.job),
        "s3Key": merged.job.spec.bedrock.s3_kms_key_id,
    }
    if isinstance(merged, StoredModelJob):
        content["etags"] = dict(merged.etags)
    return requests.request_token(merged, request.location_of(merged.job), content)


def create_request(merged: ImportableJob) -> CreateImportJob:
    """Return the parameters of CreateModelImportJob.

    Botocore fills in no client token for this operation, which lacks the idempotency trait, so the
    request has its own.
    """
    token = request_token(merged)
    parameters = _create_parameters(merged, job_id(merged.job.spec.name, token), token)
    # The token does not cover this tag: older builds had none, and their imports must be found.
    digest_tag: Tag = {"key": PLAN_TAG, "value": _plan_digest(merged, token)}
    parameters["jobTags"] = [*parameters["jobTags"], digest_tag]
    parameters["importedModelTags"] = [*parameters["importedModelTags"], digest_tag]
    return parameters


def _plan_digest(merged: ImportableJob, token: str) -> str:
    """Return the plan's digest, which the import carries as a tag."""
    covered = {"hyperParameters": dict(merged.job.spec.hyperparameters)}
    return requests.plan_digest("import", merged, token, covered)


def _create_parameters(merged: ImportableJob, name: str, client_token: str) -> CreateImportJob:
    """Return the parameters that the token covers, with this name and this token."""
    spec = merged.job.spec.bedrock
    tags = to_tag_list(with_cloudft_tags(merged.job.spec.tags, name, client_token))
    parameters: CreateImportJob = {
        "jobName": name,
        "importedModelName": request.custom_model_name(name),
        "roleArn": import_role(merged.job),
        "modelDataSource": {"s3DataSource": {"s3Uri": model_uri(merged)}},
        "jobTags": tags,
        "importedModelTags": tags,
        "clientRequestToken": client_token,
    }
    if spec.kms_key_id:
        parameters["importedModelKmsKeyId"] = spec.kms_key_id
    if spec.vpc:
        parameters["vpcConfig"] = {
            "subnetIds": list(spec.vpc.subnet_ids),
            "securityGroupIds": list(spec.vpc.security_group_ids),
        }
    return parameters


def create_call(importable: ImportableJob) -> ApiCall:
    """Return the call that creates the import."""
    parameters = dict(create_request(importable))
    return ApiCall(service="bedrock", operation=CREATE_OPERATION, parameters=parameters)


def api_calls(merged: MergedJob) -> PlannedCalls:
    """Return every call that changes something: the files, the plan, the import."""
    job, create = merged.job, create_call(merged)
    bucket, prefix = model_location(merged)
    settings = requests.object_settings(
        request.expected_bucket_owner(job), job.spec.bedrock.s3_kms_key_id
    )
    return PlannedCalls(
        uploads=tuple(
            put_file(bucket, f"{prefix}{name}", name, (file.sha256, file.bytes), settings)
            for name, file in sorted(merged.files.items())
        ),
        plan_file=put_generated(
            bucket, plan_key(job, create.parameters["jobName"]), "plan", settings
        ),
        create=create,
    )


def plan_key(job: LoadedJob, name: str) -> str:
    """Return the key of the plan in S3, from which another machine knows the import."""
    return f"{request.s3_prefix(job)[1]}jobs/{name}/{PLAN_FILE}"
