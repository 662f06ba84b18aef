"""An import as the calls that AWS gets. Pure: the same model gives the same calls anywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from cloudft.aws.tags import PLAN_TAG, with_cloudft_tags
from cloudft.backends.aws_base import discovered_plan
from cloudft.backends.base import StagedJob
from cloudft.backends.bedrock import request
from cloudft.spec.load import LoadedJob
from cloudft.spec.serialize import to_portable_values
from cloudft.types import StagedFile, job_id, to_json

CREATE_OPERATION = "create_model_import_job"
MODELS_PREFIX = "imports/"
"""Where models lie, below the job file's s3_uri: each under the digest of its files."""


@dataclass(frozen=True)
class MergedJob(StagedJob):
    """A trained job whose merged model is in `folder`; `files` are those that go to Bedrock."""

    files: Mapping[str, StagedFile] = field(default_factory=dict)


def import_role(job: LoadedJob) -> str | None:
    """The role that Bedrock takes on to read the model."""
    return job.spec.bedrock.import_role_arn or job.spec.bedrock.role_arn


def model_digest(files: Mapping[str, StagedFile]) -> str:
    """The name of the whole model: follows from every file's name and content."""
    lines = "".join(f"{file.sha256}  {name}\n" for name, file in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def model_location(merged: MergedJob) -> tuple[str, str]:
    """Bucket and key prefix of the model's files in S3."""
    bucket, prefix = request.s3_prefix(merged.job)
    return bucket, f"{prefix}{MODELS_PREFIX}{model_digest(merged.files)}/"


def request_token(merged: MergedJob) -> str:
    """The name of the request: 32 hex digits that follow from all of it and of the model."""
    place = {k: v for k, v in request.location_of(merged.job).items() if k != "profile"}
    content = {
        "attempt": merged.attempt,
        "name": merged.job.spec.name,
        "place": place,
        "request": _create_parameters(merged, "NAME", "TOKEN"),
        "owner": request.expected_bucket_owner(merged.job),
        "s3Key": merged.job.spec.bedrock.s3_kms_key_id,
    }
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


def create_request(merged: MergedJob) -> dict[str, Any]:
    """The parameters of CreateModelImportJob.

    Botocore makes no token for this call (it has no idempotency trait): this one is ours.
    """
    name = request_token(merged)
    made = _create_parameters(merged, job_id(merged.job.spec.name, name), name)
    for tags in ("jobTags", "importedModelTags"):  # not of the token: older builds had no such tag
        made[tags] = [*made[tags], {"key": PLAN_TAG, "value": _plan_digest(merged, name)}]
    return made


def _plan_digest(merged: MergedJob, token: str) -> str:
    """The plan's digest, which the import carries as a tag."""
    return discovered_plan.plan_digest(
        {
            "backend": "import",
            "name": merged.job.spec.name,
            "token": token,
            "request": {"hyperParameters": dict(merged.job.spec.hyperparameters)},
            "manifest": to_json(merged.manifest),
            "spec": to_portable_values(merged.job),
        }
    )


def _create_parameters(merged: MergedJob, name: str, client_token: str) -> dict[str, Any]:
    spec = merged.job.spec.bedrock
    bucket, prefix = model_location(merged)
    marks = with_cloudft_tags(merged.job.spec.tags, name, client_token)
    tags = [{"key": key, "value": value} for key, value in marks.items()]
    made: dict[str, Any] = {
        "jobName": name,
        "importedModelName": request.custom_model_name(name),
        "roleArn": import_role(merged.job),
        "modelDataSource": {"s3DataSource": {"s3Uri": f"s3://{bucket}/{prefix}"}},
        "jobTags": tags,
        "importedModelTags": tags,
        "clientRequestToken": client_token,
    }
    if spec.kms_key_id:
        made["importedModelKmsKeyId"] = spec.kms_key_id
    if spec.vpc:
        made["vpcConfig"] = {
            "subnetIds": list(spec.vpc.subnet_ids),
            "securityGroupIds": list(spec.vpc.security_group_ids),
        }
    return made


def api_calls(merged: MergedJob) -> list[dict[str, Any]]:
    """Every call that changes something, in order: the files, the plan, the import."""
    wanted = create_request(merged)
    bucket, prefix = model_location(merged)
    settings = _put_parameters(merged.job)
    made = [
        {
            "service": "s3",
            "operation": "put_object",
            "unless": "the object is there with this content; above 16 MiB in parts",
            "parameters": {
                "Bucket": bucket,
                "Key": f"{prefix}{name}",
                "Metadata": {"cloudft-sha256": file.sha256},
                "Body": f"<{name}, {file.bytes} bytes>",
                **settings,
            },
        }
        for name, file in sorted(merged.files.items())
    ]
    key = plan_key(merged.job, wanted["jobName"])
    plan = {"Bucket": bucket, "Key": key, "Body": "<this plan>", **settings}
    made.append({"service": "s3", "operation": "put_object", "parameters": plan})
    made.append({"service": "bedrock", "operation": CREATE_OPERATION, "parameters": wanted})
    return made


def _put_parameters(job: LoadedJob) -> dict[str, str]:
    owner = {"ExpectedBucketOwner": o} if (o := request.expected_bucket_owner(job)) else {}
    key = job.spec.bedrock.s3_kms_key_id
    return {**({"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key} if key else {}), **owner}


def plan_key(job: LoadedJob, name: str) -> str:
    """Where the plan lies in S3: what another machine needs to know of the import."""
    return f"{request.s3_prefix(job)[1]}jobs/{name}/{request.PLAN}"
