"""What a job file leaves to its stack: `sagemaker.stack` names it, its outputs are the values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudft.aws.client import Aws
from cloudft.backends.outputs import NETWORK, Taken, network, read, uri
from cloudft.spec.fill import filled, unsaid
from cloudft.spec.load import LoadedJob

TAKEN = Taken(
    "sagemaker",
    sources={
        "role_arn": ("SageMakerRoleArn",),
        "s3_uri": ("OutputBucketName", "Prefix"),
        "kms_key_id": ("KeyArn",),
        "vpc": NETWORK,
    },
    needed={"role_arn": "SageMakerRoleArn", "s3_uri": "OutputBucketName"},
)


def name_of(job: LoadedJob) -> tuple[str | None, str]:
    """The stack, and the field that names it: bedrock's, where that has to say what is missing."""
    if not unsaid(job, "sagemaker", "stack"):
        return job.spec.sagemaker.stack, "sagemaker.stack"
    missing = any(unsaid(job, "sagemaker", name) for name in TAKEN.needed)
    return (job.spec.bedrock.stack if missing else None), "bedrock.stack"


def completed(job: LoadedJob, aws: Aws) -> LoadedJob:
    """The job with its stack's values where it says nothing itself. Raises as `read` does."""
    name, field = name_of(job)
    if name is None:
        return job
    stack = read(job, aws, name, field, TAKEN)
    return filled(job, "sagemaker", _values(stack.outputs), TAKEN.origins(name))


def _values(outputs: Mapping[str, str]) -> dict[str, Any]:
    """The fields of `sagemaker` that the outputs tell."""
    told = {
        "role_arn": outputs.get("SageMakerRoleArn"),
        "s3_uri": uri(outputs, "OutputBucketName"),
        "kms_key_id": outputs.get("KeyArn"),
        "vpc": network(outputs),
    }
    return {field: value for field, value in told.items() if value}
