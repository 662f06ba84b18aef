"""Fill the job file's `bedrock` section from the outputs of the stack that it names."""

from __future__ import annotations

from cloudft.aws import stack as stacks
from cloudft.aws.client import Aws
from cloudft.backends.aws_base.grader_package import STACK_SUFFIX
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
STATE_MACHINE_OUTPUT, GRADER_OUTPUT = "JobMachineArn", "GraderFunctionArn"
SECTION, LAMBDA = "reinforcement", "lambda_arn"
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
    """Return the job with its stack's values for fields that it does not set.

    Raise as `read_stack` does.
    """
    name = job.spec.bedrock.stack
    if name is None:
        return job
    stack = read_stack(job, aws, name, FIELD, STACK_MAPPING)
    values: dict[str, object] = {**STACK_MAPPING.values(stack.outputs)}
    origins = STACK_MAPPING.origins(name)
    if job.spec.bedrock.via_stack and is_unset(job, "bedrock", "machine_arn"):
        values["machine_arn"] = _state_machine_arn(job, aws, f"{name}-jobs")
        origins["machine_arn"] = Origin("stack", f"stack {name}-jobs, {STATE_MACHINE_OUTPUT}")
    return with_grader(with_defaults(job, "bedrock", values, origins), aws, f"{name}{STACK_SUFFIX}")


def _state_machine_arn(job: LoadedJob, aws: Aws, name: str) -> str:
    """Return the ARN of the state machine in the stack STACK-jobs, made from infra/jobs.yaml."""
    field = "bedrock.via_stack"
    try:
        stack = stacks.describe_stack(aws, name)
    except ResourceNotFound as error:
        base = name.removesuffix("-jobs")
        fix = f"`cloudft infra deploy {name} --template jobs --from {base}`, or remove {field}."
        raise check_failed(job, "NoStack", error.message, fix, field) from error
    if not stack.is_usable or not stack.outputs.get(STATE_MACHINE_OUTPUT):
        message = f"the stack {name} is {stack.status} and has no output {STATE_MACHINE_OUTPUT}"
        fix = f"`cloudft infra status {name}` shows why."
        raise check_failed(job, "StackNotReady", message, fix, field)
    return stack.outputs[STATE_MACHINE_OUTPUT]


def with_grader(job: LoadedJob, aws: Aws, name: str) -> LoadedJob:
    """Return the job with the function of the stack STACK-grader, where the job has none."""
    section = job.spec.reinforcement
    if section is None or section.grader is None or not is_unset(job, SECTION, LAMBDA):
        return job
    field = f"{SECTION}.{LAMBDA}"
    try:
        stack = stacks.describe_stack(aws, name)
    except ResourceNotFound as error:
        file = job.path.name if job.path else "JOB.yaml"
        fix = f"`cloudft infra deploy {name} --grader {file}`, or set {field}."
        raise check_failed(job, "NoStack", error.message, fix, field) from error
    if not stack.is_usable or not stack.outputs.get(GRADER_OUTPUT):
        message = f"the stack {name} is {stack.status} and has no output {GRADER_OUTPUT}"
        fix = f"`cloudft infra status {name}` shows why."
        raise check_failed(job, "StackNotReady", message, fix, field)
    values = {LAMBDA: stack.outputs[GRADER_OUTPUT]}
    origins = {LAMBDA: Origin("stack", f"stack {name}, {GRADER_OUTPUT}")}
    return with_defaults(job, SECTION, values, origins)
