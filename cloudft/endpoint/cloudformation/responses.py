"""Stacks, changes and resources by the member names of CloudFormation's API."""

from __future__ import annotations

from collections.abc import Mapping

from cloudft.endpoint.cloudformation.records import Change, StackEvent, StackRecord, StackResource
from cloudft.endpoint.protocols.messages import Response


def key_value_list(kind: str, values: Mapping[str, str]) -> list[dict[str, str]]:
    """Return parameters or outputs (`kind`: Parameter, Output) as a list of keys and values."""
    return [{f"{kind}Key": key, f"{kind}Value": value} for key, value in values.items()]


def stack_response(stack: StackRecord) -> Response:
    """Return a stack as DescribeStacks returns it."""
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
        "RoleARN": stack.role,
        "DisableRollback": stack.keeps_failed,
    }


def event_response(stack: StackRecord, event: StackEvent) -> Response:
    """Return an event as DescribeStackEvents returns it."""
    return {
        "StackId": stack.arn,
        "StackName": stack.name,
        "EventId": event.id,
        "LogicalResourceId": event.logical,
        "PhysicalResourceId": event.physical,
        "ResourceType": event.type,
        "Timestamp": event.at,
        "ResourceStatus": event.status,
        "ResourceStatusReason": event.reason,
        "ClientRequestToken": event.token,
    }


def change_response(change: Change) -> Response:
    """Return the change of a resource as DescribeChangeSet returns it."""
    return {
        "Action": change.action,
        "LogicalResourceId": change.logical,
        "PhysicalResourceId": change.physical or None,
        "ResourceType": change.type,
        "Replacement": change.replacement,
    }


def resource_response(stack: StackRecord, resource: StackResource) -> Response:
    """Return a resource as the operations that describe or list resources return it.

    They name the time of the last status differently: serialization takes the name of each.
    """
    return {
        "StackId": stack.arn,
        "StackName": stack.name,
        "LogicalResourceId": resource.logical,
        "PhysicalResourceId": resource.physical,
        "ResourceType": resource.type,
        "Timestamp": resource.changed,
        "LastUpdatedTimestamp": resource.changed,
        "ResourceStatus": resource.status,
        "ResourceStatusReason": resource.reason,
    }
