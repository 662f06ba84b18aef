"""What a job file leaves to a stack: a section names it, its outputs are the section's values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloudft.aws import stack as stacks
from cloudft.aws.client import Aws
from cloudft.errors import AwsNotFound, CheckFailed, CloudftError
from cloudft.spec.fill import SectionName, unsaid
from cloudft.spec.layers import Origin
from cloudft.spec.load import LoadedJob
from cloudft.types import Finding

NETWORK = ("SubnetIds", "SecurityGroupIds")


@dataclass(frozen=True)
class Taken:
    """What a section takes: of each field, the outputs that it is made of, and those it needs."""

    section: SectionName
    sources: Mapping[str, tuple[str, ...]]
    needed: Mapping[str, str]

    def origins(self, stack: str) -> dict[str, Origin]:
        """Where each value comes from."""
        return {
            field: Origin("stack", f"stack {stack}, {' and '.join(outputs)}")
            for field, outputs in self.sources.items()
        }


def read(job: LoadedJob, aws: Aws, name: str, field: str, taken: Taken) -> stacks.Stack:
    """The stack that `field` names, ready and with all that is needed.

    Raises CheckFailed for a stack that is missing, not ready, or lacks an output that is needed;
    AwsRefused and AwsUnreachable, with their place in the job file, where it can't be looked at.
    """
    if aws.place.region is None:
        place = f"{taken.section}.region"
        fix = f"set {place}, --region or AWS_REGION."
        raise failed(job, "MissingValue", "no AWS Region is named", fix, place)
    try:
        stack = stacks.read(aws, name)
    except AwsNotFound as error:
        raise failed(job, "NoStack", error.message, error.fix or "", field) from error
    except CloudftError as error:
        error.field, error.line = field, job.line_of(field)
        error.file = str(job.path) if job.path else None
        raise
    _refuse(job, stack, field, taken)
    return stack


def _refuse(job: LoadedJob, stack: stacks.Stack, field: str, taken: Taken) -> None:
    if not stack.ready:
        message = f"the stack {stack.name} is {stack.status}: its outputs can't be relied on"
        name = stack.name
        fix = f"`cloudft infra status {name}` tells why; `cloudft infra deploy {name}` mends it."
        raise failed(job, "StackNotReady", message, fix, field)
    for name, output in taken.needed.items():
        if unsaid(job, taken.section, name) and not stack.outputs.get(output):
            has = ", ".join(sorted(stack.outputs)) or "none"
            message = f"the stack {stack.name} has no output {output} (it has: {has})"
            fix = "name a stack that `cloudft infra deploy NAME` has made,"
            fix += f" or set {taken.section}.{name}."
            raise failed(job, "NoSuchOutput", message, fix, field)


def failed(job: LoadedJob, code: str, message: str, fix: str, field: str) -> CheckFailed:
    """The error for one finding."""
    file = str(job.path) if job.path else None
    finding = Finding("error", code, message, fix, file, job.line_of(field), field)
    return CheckFailed(message, [finding])


def uri(outputs: Mapping[str, str], bucket: str) -> str | None:
    """The place below the stack's prefix in the bucket that an output names."""
    name = outputs.get(bucket)
    return f"s3://{name}/{outputs.get('Prefix', '')}".rstrip("/") if name else None


def network(outputs: Mapping[str, str]) -> dict[str, Any] | None:
    """The stack's network, where it has one."""
    subnets, groups = (outputs.get(name) for name in NETWORK)
    if not subnets or not groups:
        return None
    return {"subnet_ids": subnets.split(","), "security_group_ids": groups.split(",")}
