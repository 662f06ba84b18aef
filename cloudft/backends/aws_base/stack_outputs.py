"""Values that a job file takes from a CloudFormation stack: the outputs fill unset fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cloudft.aws import stack as stacks
from cloudft.aws.client import Aws
from cloudft.errors import CheckFailed, CloudftError, ResourceNotFound
from cloudft.spec.load import LoadedJob
from cloudft.spec.merge import Origin
from cloudft.spec.stack_defaults import SectionName, is_unset
from cloudft.types import Finding

NETWORK_OUTPUTS = ("SubnetIds", "SecurityGroupIds")
PREFIX_OUTPUT = "Prefix"
"""Output with the key prefix below which the stack's roles may work in its buckets."""


@dataclass(frozen=True)
class StackMapping:
    """Which outputs fill which fields of a section, and which fields are required."""

    section: SectionName
    sources: Mapping[str, tuple[str, ...]]
    required: Mapping[str, str]

    def values(self, outputs: Mapping[str, str]) -> dict[str, str | dict[str, list[str]]]:
        """Return the fields that the outputs fill, each built from its outputs."""
        values: dict[str, str | dict[str, list[str]] | None] = {}
        for field, names in self.sources.items():
            if names == NETWORK_OUTPUTS:
                values[field] = vpc_settings(outputs)
            elif PREFIX_OUTPUT in names:
                values[field] = prefix_uri(outputs, names[0])
            else:
                values[field] = outputs.get(names[0])
        return {field: value for field, value in values.items() if value}

    def origins(self, stack: str) -> dict[str, Origin]:
        """Return the origin of each value."""
        return {
            field: Origin("stack", f"stack {stack}, {' and '.join(outputs)}")
            for field, outputs in self.sources.items()
        }


def read_stack(
    job: LoadedJob, aws: Aws, name: str, field: str, mapping: StackMapping
) -> stacks.Stack:
    """Return the stack that `field` names, ready and with every required output.

    Raise CheckFailed for a stack that is missing, not ready, or lacks a required output;
    CloudRefused and CloudUnreachable, with their location in the job file, where it can't be read.
    """
    if aws.location.region is None:
        place = f"{mapping.section}.region"
        fix = f"set {place}, --region or AWS_REGION."
        raise check_failed(job, "MissingValue", "no AWS Region is set", fix, place)
    try:
        stack = stacks.describe_stack(aws, name)
    except ResourceNotFound as error:
        raise check_failed(job, "NoStack", error.message, error.fix or "", field) from error
    except CloudftError as error:
        error.field, error.line = field, job.line_of(field)
        error.file = str(job.path) if job.path else None
        raise
    _check_stack(job, stack, field, mapping)
    return stack


def _check_stack(job: LoadedJob, stack: stacks.Stack, field: str, mapping: StackMapping) -> None:
    if not stack.is_usable:
        message = f"the stack {stack.name} is {stack.status}: its outputs may be wrong"
        name = stack.name
        fix = f"`cloudft infra status {name}` shows why; `cloudft infra deploy {name}` repairs it."
        raise check_failed(job, "StackNotReady", message, fix, field)
    for name, output in mapping.required.items():
        if is_unset(job, mapping.section, name) and not stack.outputs.get(output):
            has = ", ".join(sorted(stack.outputs)) or "none"
            message = f"the stack {stack.name} has no output {output} (it has: {has})"
            fix = "use a stack that `cloudft infra deploy NAME` has created,"
            fix += f" or set {mapping.section}.{name}."
            raise check_failed(job, "NoSuchOutput", message, fix, field)


def check_failed(job: LoadedJob, code: str, message: str, fix: str, field: str) -> CheckFailed:
    """Return the error for one finding."""
    file = str(job.path) if job.path else None
    finding = Finding("error", code, message, fix, file, job.line_of(field), field)
    return CheckFailed(message, [finding])


def prefix_uri(outputs: Mapping[str, str], bucket: str) -> str | None:
    """Return the URI of the stack's prefix in the bucket that an output names, or None."""
    name = outputs.get(bucket)
    return f"s3://{name}/{outputs.get(PREFIX_OUTPUT, '')}".rstrip("/") if name else None


def vpc_settings(outputs: Mapping[str, str]) -> dict[str, list[str]] | None:
    """Return the stack's network settings, where it has a network."""
    subnets, groups = (outputs.get(name) for name in NETWORK_OUTPUTS)
    if not subnets or not groups:
        return None
    return {"subnet_ids": subnets.split(","), "security_group_ids": groups.split(",")}
