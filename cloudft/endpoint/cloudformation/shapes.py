"""Members of CloudFormation's requests, by the API's names (botocore's model `cloudformation`).

They name the members that the endpoint reads; a request may have more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict


class TemplateParameter(TypedDict, total=False):
    """A parameter's value, or that its previous value stays."""

    ParameterKey: str
    ParameterValue: str
    UsePreviousValue: bool


class ChangeSetIdentifier(TypedDict, total=False):
    """A change set by its ARN, or by its name with the stack's."""

    ChangeSetName: str
    StackName: str


class CreateChangeSetRequest(ChangeSetIdentifier, total=False):
    """Request of CreateChangeSet."""

    ChangeSetType: str
    TemplateBody: str
    UsePreviousTemplate: bool
    Parameters: Sequence[TemplateParameter]
    Capabilities: Sequence[str]
    Tags: Sequence[Mapping[str, str]]
    ClientToken: str


class ExecuteChangeSetRequest(ChangeSetIdentifier, total=False):
    """Request of ExecuteChangeSet."""

    ClientRequestToken: str


class StackIdentifier(TypedDict):
    """A stack, by name or ARN."""

    StackName: str


class DescribeStacksRequest(TypedDict, total=False):
    """Request of DescribeStacks: one stack, or all."""

    StackName: str


class ListStacksRequest(TypedDict, total=False):
    """Request of ListStacks."""

    StackStatusFilter: Sequence[str]


class TerminationProtectionRequest(StackIdentifier):
    """Request of UpdateTerminationProtection."""

    EnableTerminationProtection: bool


class DeleteStackRequest(StackIdentifier, total=False):
    """Request of DeleteStack."""

    ClientRequestToken: str


class DriftDetectionIdentifier(TypedDict):
    """A drift detection that was started."""

    StackDriftDetectionId: str


class ResourceDriftsRequest(StackIdentifier, total=False):
    """Request of DescribeStackResourceDrifts."""

    StackResourceDriftStatusFilters: Sequence[str]
