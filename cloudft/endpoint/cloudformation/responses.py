"""Stacks, changes and resources in the API's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudft.endpoint.cloudformation.records import Change, StackRecord, StackResource


def key_value_list(kind: str, values: Mapping[str, str]) -> list[dict[str, str]]:
    """Parameters or outputs: a list of keys and values."""
    return [{f"{kind}Key": key, f"{kind}Value": value} for key, value in values.items()]


def stack_response(stack: StackRecord) -> dict[str, Any]:
    """A stack."""
    return {
        "StackId": stack.arn,
        "StackName": stack.name,
        "Description": stack.description,
        "Parameters": key_value_list("Parameter", stack.parameters),
        "CreationTime": stack.created,
        "DeletionTime": stack.deleted,
        "LastUpdatedTime": stack.updated,
        "StackStatus": stack.status,
        "StackStatusReason": stack.reason,
        "Outputs": key_value_list("Output", stack.outputs),
        "Tags": [{"Key": key, "Value": value} for key, value in stack.tags.items()],
        "EnableTerminationProtection": stack.protected,
    }


def change_response(change: Change) -> dict[str, Any]:
    """A change of a resource."""
    return {
        "Action": change.action,
        "LogicalResourceId": change.logical,
        "PhysicalResourceId": change.physical or None,
        "ResourceType": change.type,
        "Replacement": change.replacement,
    }


def resource_response(piece: StackResource) -> dict[str, Any]:
    """A resource."""
    return {
        "LogicalResourceId": piece.logical,
        "PhysicalResourceId": piece.physical,
        "ResourceType": piece.type,
        "LastUpdatedTimestamp": piece.changed,
        "ResourceStatus": piece.status,
        "ResourceStatusReason": piece.reason,
    }
