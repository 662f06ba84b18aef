"""A CloudFormation stack as it stands: its state, its parameters and its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloudft.aws.client import Aws
from cloudft.errors import AwsNotFound, AwsRefused

READY = frozenset(
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
    protected: bool
    changed: str
    """When it was made, or last changed: ISO 8601."""

    @property
    def ready(self) -> bool:
        """True when all of it is there."""
        return self.status in READY


def read(aws: Aws, name: str) -> Stack:
    """The stack of that name or ARN. Raises AwsNotFound, AwsRefused and AwsUnreachable."""
    what = f"the stack {name} can't be looked at"
    try:
        answer = aws.call(what, "cloudformation", "describe_stacks", StackName=name)
    except AwsRefused as error:
        if "does not exist" not in error.message:
            raise
        raise no_such_stack(name, aws) from error
    return _stack(answer["Stacks"][0])


def no_such_stack(name: str, aws: Aws) -> AwsNotFound:
    """The error for a stack that there is not."""
    where = f" in {aws.place.region}" if aws.place.region else ""
    return AwsNotFound(
        f"there is no stack {name}{where}",
        fix=f"`cloudft infra deploy {name}` makes it; or check --profile and --region.",
    )


def _stack(told: Mapping[str, Any]) -> Stack:
    return Stack(
        name=told["StackName"],
        id=told["StackId"],
        status=told["StackStatus"],
        reason=told.get("StackStatusReason"),
        outputs=_pairs(told.get("Outputs", ()), "Output"),
        parameters=_pairs(told.get("Parameters", ()), "Parameter"),
        tags=_pairs(told.get("Tags", ()), ""),
        protected=bool(told.get("EnableTerminationProtection", False)),
        changed=str(told.get("LastUpdatedTime") or told["CreationTime"]),
    )


def _pairs(items: Any, kind: str) -> dict[str, str]:
    return {item[f"{kind}Key"] if kind else item["Key"]: _value(item, kind) for item in items}


def _value(item: Mapping[str, Any], kind: str) -> str:
    return str(item.get(f"{kind}Value" if kind else "Value", ""))
