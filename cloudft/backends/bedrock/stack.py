"""What a job file leaves to its stack: `bedrock.stack` names it, its outputs are the values."""

from __future__ import annotations

from cloudft.aws import stack as stacks
from cloudft.aws.client import Aws
from cloudft.backends.aws_base.stack_outputs import (
    NETWORK_OUTPUTS,
    StackMapping,
    check_failed,
    read_stack,
)
from cloudft.errors import ResourceNotFound
from cloudft.spec.load import LoadedJob
from cloudft.spec.merge import Origin
from cloudft.spec.stack_defaults import is_unset, with_defaults

FIELD = "bedrock.stack"
STATE_MACHINE_OUTPUT = "JobMachineArn"
STACK_MAPPING = StackMapping(
    "bedrock",
    sources={
        "role_arn": ("BedrockRoleArn",),
        "s3_uri": ("DataBucketName", "Prefix"),
        "output_s3_uri": ("OutputBucketName", "Prefix"),
        "kms_key_id": ("KeyArn",),
        "import_role_arn": ("ImportRoleArn",),
        "vpc": NETWORK_OUTPUTS,
    },
    required={"role_arn": "BedrockRoleArn", "s3_uri": "DataBucketName"},
)


def with_stack_defaults(job: LoadedJob, aws: Aws) -> LoadedJob:
    """The job with its stack's values where it says nothing itself. Raises as `read` does."""
    name = job.spec.bedrock.stack
    if name is None:
        return job
    stack = read_stack(job, aws, name, FIELD, STACK_MAPPING)
    values, origins = STACK_MAPPING.values(stack.outputs), STACK_MAPPING.origins(name)
    if job.spec.bedrock.via_stack and is_unset(job, "bedrock", "machine_arn"):
        values["machine_arn"] = _state_machine_arn(job, aws, f"{name}-jobs")
        origins["machine_arn"] = Origin("stack", f"stack {name}-jobs, {STATE_MACHINE_OUTPUT}")
    return with_defaults(job, "bedrock", values, origins)


def _state_machine_arn(job: LoadedJob, aws: Aws, name: str) -> str:
    """The state machine of the stack beside, which infra/jobs.yaml makes."""
    field = "bedrock.via_stack"
    try:
        beside = stacks.describe_stack(aws, name)
    except ResourceNotFound as error:
        base = name.removesuffix("-jobs")
        fix = f"`cloudft infra deploy {name} --template jobs --from {base}`, or leave it out."
        raise check_failed(job, "NoStack", error.message, fix, field) from error
    if not beside.is_usable or not beside.outputs.get(STATE_MACHINE_OUTPUT):
        message = f"the stack {name} is {beside.status} and tells no {STATE_MACHINE_OUTPUT}"
        fix = f"`cloudft infra status {name}` tells why."
        raise check_failed(job, "StackNotReady", message, fix, field)
    return beside.outputs[STATE_MACHINE_OUTPUT]
