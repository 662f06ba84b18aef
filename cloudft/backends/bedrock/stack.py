"""What a job file leaves to its stack: `bedrock.stack` names it, its outputs are the values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudft.aws import stack as stacks
from cloudft.aws.client import Aws
from cloudft.errors import AwsNotFound, CheckFailed, CloudftError
from cloudft.spec.fill import filled, unsaid
from cloudft.spec.layers import Origin
from cloudft.spec.load import LoadedJob
from cloudft.types import Finding

FIELD = "bedrock.stack"
MACHINE = "JobMachineArn"
NEEDED = {"role_arn": "BedrockRoleArn", "s3_uri": "DataBucketName"}
"""Field -> the output without which it stays empty."""


def completed(job: LoadedJob, aws: Aws) -> LoadedJob:
    """The job with its stack's values where it says nothing itself.

    Raises CheckFailed for a stack that is missing, not ready, or lacks an output that is needed;
    AwsRefused and AwsUnreachable, with their place in the job file, where it can't be looked at.
    """
    name = job.spec.bedrock.stack
    if name is None:
        return job
    if job.spec.bedrock.region is None:
        fix = "set bedrock.region, --region or AWS_REGION."
        raise _failed(job, "MissingValue", "no AWS Region is named", fix, "bedrock.region")
    try:
        stack = stacks.read(aws, name)
    except AwsNotFound as error:
        raise _failed(job, "NoStack", error.message, error.fix or "") from error
    except CloudftError as error:
        error.field, error.line = FIELD, job.line_of(FIELD)
        error.file = str(job.path) if job.path else None
        raise
    _refuse(job, stack)
    values = _values(stack.outputs)
    origins = {field: _origin(name, field) for field in values}
    if job.spec.bedrock.via_stack and unsaid(job, "machine_arn"):
        values["machine_arn"] = _machine(job, aws, f"{name}-jobs")
        origins["machine_arn"] = Origin("stack", f"stack {name}-jobs, {MACHINE}")
    return filled(job, values, origins)


def _machine(job: LoadedJob, aws: Aws, name: str) -> str:
    """The state machine of the stack beside, which infra/jobs.yaml makes."""
    field = "bedrock.via_stack"
    try:
        beside = stacks.read(aws, name)
    except AwsNotFound as error:
        fix = f"deploy infra/jobs.yaml as {name} (docs/jobs-in-the-account.md), or leave it out."
        raise _failed(job, "NoStack", error.message, fix, field) from error
    if not beside.ready or not beside.outputs.get(MACHINE):
        message = f"the stack {name} is {beside.status} and tells no {MACHINE}"
        fix = f"`cloudft infra status {name}` tells why."
        raise _failed(job, "StackNotReady", message, fix, field)
    return beside.outputs[MACHINE]


def _refuse(job: LoadedJob, stack: stacks.Stack) -> None:
    if not stack.ready:
        message = f"the stack {stack.name} is {stack.status}: its outputs can't be relied on"
        fix = f"`cloudft infra status {stack.name}` tells why; `cloudft infra deploy` mends it."
        raise _failed(job, "StackNotReady", message, fix)
    for field, output in NEEDED.items():
        if unsaid(job, field) and not stack.outputs.get(output):
            has = ", ".join(sorted(stack.outputs)) or "none"
            message = f"the stack {stack.name} has no output {output} (it has: {has})"
            fix = f"name a stack of `cloudft infra deploy`, or set bedrock.{field}."
            raise _failed(job, "NoSuchOutput", message, fix)


def _failed(job: LoadedJob, code: str, message: str, fix: str, field: str = FIELD) -> CheckFailed:
    file = str(job.path) if job.path else None
    finding = Finding("error", code, message, fix, file, job.line_of(field), field)
    return CheckFailed(message, [finding])


SOURCES = {
    "role_arn": ("BedrockRoleArn",),
    "s3_uri": ("DataBucketName", "Prefix"),
    "output_s3_uri": ("OutputBucketName", "Prefix"),
    "kms_key_id": ("KeyArn",),
    "import_role_arn": ("ImportRoleArn",),
    "vpc": ("SubnetIds", "SecurityGroupIds"),
}
"""Field -> the outputs that it is made of."""


def _origin(name: str, field: str) -> Origin:
    return Origin("stack", f"stack {name}, {' and '.join(SOURCES[field])}")


def _values(outputs: Mapping[str, str]) -> dict[str, Any]:
    """The fields of `bedrock` that the outputs tell."""
    data, output = outputs.get("DataBucketName"), outputs.get("OutputBucketName")
    prefix = outputs.get("Prefix", "")
    told: dict[str, Any] = {
        "role_arn": outputs.get("BedrockRoleArn"),
        "s3_uri": _uri(data, prefix),
        "output_s3_uri": _uri(output, prefix),
        "kms_key_id": outputs.get("KeyArn"),
        "import_role_arn": outputs.get("ImportRoleArn"),
    }
    subnets, groups = outputs.get("SubnetIds"), outputs.get("SecurityGroupIds")
    if subnets and groups:
        told["vpc"] = {
            "subnet_ids": subnets.split(","),
            "security_group_ids": groups.split(","),
        }
    return {field: value for field, value in told.items() if value}


def _uri(bucket: str | None, prefix: str) -> str | None:
    return f"s3://{bucket}/{prefix}".rstrip("/") if bucket else None
