"""What a job file leaves to its stack: `bedrock.stack` names it, its outputs are the values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudft.aws import stack as stacks
from cloudft.aws.client import Aws
from cloudft.backends.outputs import NETWORK, Taken, failed, network, read, uri
from cloudft.errors import AwsNotFound
from cloudft.spec.fill import filled, unsaid
from cloudft.spec.layers import Origin
from cloudft.spec.load import LoadedJob

FIELD = "bedrock.stack"
MACHINE = "JobMachineArn"
TAKEN = Taken(
    "bedrock",
    sources={
        "role_arn": ("BedrockRoleArn",),
        "s3_uri": ("DataBucketName", "Prefix"),
        "output_s3_uri": ("OutputBucketName", "Prefix"),
        "kms_key_id": ("KeyArn",),
        "import_role_arn": ("ImportRoleArn",),
        "vpc": NETWORK,
    },
    needed={"role_arn": "BedrockRoleArn", "s3_uri": "DataBucketName"},
)


def completed(job: LoadedJob, aws: Aws) -> LoadedJob:
    """The job with its stack's values where it says nothing itself. Raises as `read` does."""
    name = job.spec.bedrock.stack
    if name is None:
        return job
    stack = read(job, aws, name, FIELD, TAKEN)
    values, origins = _values(stack.outputs), TAKEN.origins(name)
    if job.spec.bedrock.via_stack and unsaid(job, "bedrock", "machine_arn"):
        values["machine_arn"] = _machine(job, aws, f"{name}-jobs")
        origins["machine_arn"] = Origin("stack", f"stack {name}-jobs, {MACHINE}")
    return filled(job, "bedrock", values, origins)


def _machine(job: LoadedJob, aws: Aws, name: str) -> str:
    """The state machine of the stack beside, which infra/jobs.yaml makes."""
    field = "bedrock.via_stack"
    try:
        beside = stacks.read(aws, name)
    except AwsNotFound as error:
        base = name.removesuffix("-jobs")
        fix = f"`cloudft infra deploy {name} --template jobs --from {base}`, or leave it out."
        raise failed(job, "NoStack", error.message, fix, field) from error
    if not beside.ready or not beside.outputs.get(MACHINE):
        message = f"the stack {name} is {beside.status} and tells no {MACHINE}"
        fix = f"`cloudft infra status {name}` tells why."
        raise failed(job, "StackNotReady", message, fix, field)
    return beside.outputs[MACHINE]


def _values(outputs: Mapping[str, str]) -> dict[str, Any]:
    """The fields of `bedrock` that the outputs tell."""
    told = {
        "role_arn": outputs.get("BedrockRoleArn"),
        "s3_uri": uri(outputs, "DataBucketName"),
        "output_s3_uri": uri(outputs, "OutputBucketName"),
        "kms_key_id": outputs.get("KeyArn"),
        "import_role_arn": outputs.get("ImportRoleArn"),
        "vpc": network(outputs),
    }
    return {field: value for field, value in told.items() if value}
