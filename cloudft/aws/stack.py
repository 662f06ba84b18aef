"""A CloudFormation stack: its status, parameters and outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cloudft.aws.client import Aws, Response
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
"""Statuses in which all resources of a stack exist and its outputs are valid."""


@dataclass(frozen=True)
class Stack:
    """A stack as DescribeStacks returned it. `id` is its ARN, which no later stack of the same name
    has. `changed_at` is when it was created or last updated, ISO 8601.
    """

    name: str
    id: str
    status: str
    reason: str | None
    outputs: Mapping[str, str]
    parameters: Mapping[str, str]
    tags: Mapping[str, str]
    termination_protection: bool
    changed_at: str

    @property
    def is_usable(self) -> bool:
        """Return whether all resources exist and the outputs are valid."""
        return self.status in USABLE_STATUSES


def describe_stack(aws: Aws, name: str) -> Stack:
    """Return the stack of that name or ARN.

    Raise ResourceNotFound, CloudRefused and CloudUnreachable.
    """
    failure = f"can't read the stack {name}"
    try:
        response = aws.call(failure, "cloudformation", "describe_stacks", StackName=name)
    except CloudRefused as error:
        # CloudFormation reports a missing stack as a ValidationError.
        if "does not exist" not in error.message:
            raise
        raise stack_not_found(name, aws) from error
    return _to_stack(response["Stacks"][0])


def stack_not_found(name: str, aws: Aws) -> ResourceNotFound:
    """Return the error for a stack that does not exist."""
    region = f" in {aws.location.region}" if aws.location.region else ""
    return ResourceNotFound(
        f"there is no stack {name}{region}",
        fix=f"`cloudft infra deploy {name}` creates it; or check --profile and --region.",
    )


def _to_stack(description: Response) -> Stack:
    return Stack(
        name=description["StackName"],
        id=description["StackId"],
        status=description["StackStatus"],
        reason=description.get("StackStatusReason"),
        outputs=_to_dict(description.get("Outputs", ()), "OutputKey", "OutputValue"),
        parameters=_to_dict(description.get("Parameters", ()), "ParameterKey", "ParameterValue"),
        tags=_to_dict(description.get("Tags", ()), "Key", "Value"),
        termination_protection=bool(description.get("EnableTerminationProtection", False)),
        changed_at=str(description.get("LastUpdatedTime") or description["CreationTime"]),
    )


def _to_dict(items: Iterable[Mapping[str, str]], key: str, value: str) -> dict[str, str]:
    return {item[key]: str(item.get(value, "")) for item in items}
