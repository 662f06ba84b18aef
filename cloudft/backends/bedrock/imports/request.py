"""An import as the calls that AWS gets. Pure: the same model gives the same calls anywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from cloudft.aws.tags import PLAN, marked
from cloudft.backends import found
from cloudft.backends.base import StagedJob
from cloudft.backends.bedrock import request
from cloudft.spec.load import LoadedJob
from cloudft.spec.portable import portable
from cloudft.types import DataFile, job_id, to_json

CREATE = "create_model_import_job"
MODELS = "imports/"
"""Where models lie, below the job file's s3_uri: each under the digest of its files."""


@dataclass(frozen=True)
class MergedJob(StagedJob):
    """A trained job whose merged model is in `folder`; `files` are those that go to Bedrock."""

    files: Mapping[str, DataFile] = field(default_factory=dict)


def role_of(job: LoadedJob) -> str | None:
    """The role that Bedrock takes on to read the model."""
    return job.spec.bedrock.import_role_arn or job.spec.bedrock.role_arn


def digest(files: Mapping[str, DataFile]) -> str:
    """The name of the whole model: follows from every file's name and content."""
    lines = "".join(f"{file.sha256}  {name}\n" for name, file in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def folder_of(merged: MergedJob) -> tuple[str, str]:
    """Bucket and key prefix of the model's files in S3."""
    bucket, prefix = request.prefix_of(merged.job)
    return bucket, f"{prefix}{MODELS}{digest(merged.files)}/"


def token(merged: MergedJob) -> str:
    """The name of the request: 32 hex digits that follow from all of it and of the model."""
    place = {k: v for k, v in request.place_of(merged.job).items() if k != "profile"}
    content = {
        "attempt": merged.attempt,
        "name": merged.job.spec.name,
        "place": place,
        "request": _create(merged, "NAME", "TOKEN"),
        "owner": request.bucket_owner(merged.job),
        "s3Key": merged.job.spec.bedrock.s3_kms_key_id,
    }
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


def create(merged: MergedJob) -> dict[str, Any]:
    """The parameters of CreateModelImportJob.

    Botocore makes no token for this call (it has no idempotency trait): this one is ours.
    """
    name = token(merged)
    made = _create(merged, job_id(merged.job.spec.name, name), name)
    for tags in ("jobTags", "importedModelTags"):  # not of the token: older builds had no such tag
        made[tags] = [*made[tags], {"key": PLAN, "value": _plan_digest(merged, name)}]
    return made


def _plan_digest(merged: MergedJob, token: str) -> str:
    """The plan's digest, which the import carries as a tag."""
    return found.digest(
        {
            "backend": "import",
            "name": merged.job.spec.name,
            "token": token,
            "request": {"hyperParameters": dict(merged.job.spec.hyperparameters)},
            "manifest": to_json(merged.manifest),
            "spec": portable(merged.job),
        }
    )


def _create(merged: MergedJob, name: str, client_token: str) -> dict[str, Any]:
    spec = merged.job.spec.bedrock
    bucket, prefix = folder_of(merged)
    marks = marked(merged.job.spec.tags, name, client_token)
    tags = [{"key": key, "value": value} for key, value in marks.items()]
    made: dict[str, Any] = {
        "jobName": name,
        "importedModelName": request.model_name(name),
        "roleArn": role_of(merged.job),
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


def calls(merged: MergedJob) -> list[dict[str, Any]]:
    """Every call that changes something, in order: the files, the plan, the import."""
    wanted = create(merged)
    bucket, prefix = folder_of(merged)
    settings = _settings(merged.job)
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
    made.append({"service": "bedrock", "operation": CREATE, "parameters": wanted})
    return made


def _settings(job: LoadedJob) -> dict[str, str]:
    owner = {"ExpectedBucketOwner": o} if (o := request.bucket_owner(job)) else {}
    key = job.spec.bedrock.s3_kms_key_id
    return {**({"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key} if key else {}), **owner}


def plan_key(job: LoadedJob, name: str) -> str:
    """Where the plan lies in S3: what another machine needs to know of the import."""
    return f"{request.prefix_of(job)[1]}jobs/{name}/{request.PLAN}"
