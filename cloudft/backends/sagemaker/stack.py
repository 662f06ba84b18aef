"""Fill unset fields of `sagemaker` from the outputs of the stack that the job file names."""

from __future__ import annotations

from cloudft.aws.client import Aws
from cloudft.backends.aws_base.stack_outputs import (
    NETWORK_OUTPUTS,
    StackMapping,
    read_stack,
)
from cloudft.spec.load import LoadedJob
from cloudft.spec.stack_defaults import is_unset, with_defaults

STACK_MAPPING = StackMapping(
    "sagemaker",
    sources={
        "role_arn": ("SageMakerRoleArn",),
        "s3_uri": ("OutputBucketName", "Prefix"),
        "kms_key_id": ("KeyArn",),
        "vpc": NETWORK_OUTPUTS,
    },
    required={"role_arn": "SageMakerRoleArn", "s3_uri": "OutputBucketName"},
)


def find_stack(job: LoadedJob) -> tuple[str | None, str]:
    """Return the stack, and the field that names it: bedrock's, where sagemaker names none."""
    if not is_unset(job, "sagemaker", "stack"):
        return job.spec.sagemaker.stack, "sagemaker.stack"
    missing = any(is_unset(job, "sagemaker", name) for name in STACK_MAPPING.required)
    return (job.spec.bedrock.stack if missing else None), "bedrock.stack"


def with_stack_defaults(job: LoadedJob, aws: Aws) -> LoadedJob:
    """Return the job with its stack's values for unset fields. Raise as `read_stack` does."""
    name, field = find_stack(job)
    if name is None:
        return job
    stack = read_stack(job, aws, name, field, STACK_MAPPING)
    return with_defaults(
        job, "sagemaker", STACK_MAPPING.values(stack.outputs), STACK_MAPPING.origins(name)
    )
