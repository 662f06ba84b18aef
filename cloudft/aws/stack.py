"""A CloudFormation stack as it stands: its state, its parameters and its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloudft.aws.client import Aws
from cloudft.errors import CloudRefused, ResourceNotFound

USABLE_STATUSES = frozenset(
    {
        "CREATE_COMPLETE",
        "IMPORT_COMPLETE",
        "IMPORT_ROLLBACK_COMPLETE",
        "UPDATE_COMPLETE",
        "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS",
        "UPDATE_ROLLBACK_COMPLETE",
    }
)
"""The states in which everything of a stack is there and its outputs are true."""


@dataclass(frozen=True)
class Stack:
    """One look at a stack. `id` is its ARN, which no later stack of the same name has."""

    name: str
    id: str
    status: str
    reason: str | None
    outputs: Mapping[str, str]
    parameters: Mapping[str, str]
    tags: Mapping[str, str]
    termination_protection: bool
    changed_at: str
    """When it was made, or last changed: ISO 8601."""

    @property
    def is_usable(self) -> bool:
        """True when all of it is there."""
        return self.status in USABLE_STATUSES


def describe_stack(aws: Aws, name: str) -> Stack:
    """The stack of that name or ARN. Raises AwsNotFound, AwsRefused and AwsUnreachable."""
    what = f"the stack {name} can't be looked at"
    try:
        answer = aws.call(what, "cloudformation", "describe_stacks", StackName=name)
    except CloudRefused as error:
        if "does not exist" not in error.message:
            raise
        raise stack_not_found(name, aws) from error
    return _to_stack(answer["Stacks"][0])


def stack_not_found(name: str, aws: Aws) -> ResourceNotFound:
    """The error for a stack that there is not."""
    where = f" in {aws.location.region}" if aws.location.region else ""
    return ResourceNotFound(
        f"there is no stack {name}{where}",
        fix=f"`cloudft infra deploy {name}` makes it; or check --profile and --region.",
    )


def _to_stack(told: Mapping[str, Any]) -> Stack:
    return Stack(
        name=told["StackName"],
        id=told["StackId"],
        status=told["StackStatus"],
        reason=told.get("StackStatusReason"),
        outputs=_to_dict(told.get("Outputs", ()), "Output"),
        parameters=_to_dict(told.get("Parameters", ()), "Parameter"),
        tags=_to_dict(told.get("Tags", ()), ""),
        termination_protection=bool(told.get("EnableTerminationProtection", False)),
        changed_at=str(told.get("LastUpdatedTime") or told["CreationTime"]),
    )


def _to_dict(items: Any, kind: str) -> dict[str, str]:
    return {item[f"{kind}Key"] if kind else item["Key"]: _value(item, kind) for item in items}


def _value(item: Mapping[str, Any], kind: str) -> str:
    return str(item.get(f"{kind}Value" if kind else "Value", ""))
