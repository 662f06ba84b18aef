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


class TemplateSource(TypedDict, total=False):
    """A template: its text, or the address of an object that has it."""

    TemplateBody: str
    TemplateURL: str


class TemplateSummaryRequest(TemplateSource, total=False):
    """Request of GetTemplateSummary: a template, or that of a stack."""

    StackName: str
    StackSetName: str


class StackRequest(TemplateSource, total=False):
    """What CreateStack, UpdateStack and CreateChangeSet share."""

    StackName: str
    UsePreviousTemplate: bool
    Parameters: Sequence[TemplateParameter]
    Capabilities: Sequence[str]
    Tags: Sequence[Mapping[str, str]]
    RoleARN: str


class CreateStackRequest(StackRequest, total=False):
    """Request of CreateStack."""

    DisableRollback: bool
    OnFailure: str
    EnableTerminationProtection: bool
    ClientRequestToken: str


class UpdateStackRequest(StackRequest, total=False):
    """Request of UpdateStack."""

    DisableRollback: bool
    ClientRequestToken: str


class ChangeSetIdentifier(TypedDict, total=False):
    """A change set by its ARN, or by its name with the stack's."""

    ChangeSetName: str
    StackName: str


class CreateChangeSetRequest(StackRequest, total=False):
    """Request of CreateChangeSet."""

    ChangeSetName: str
    ChangeSetType: str
    Description: str
    OnStackFailure: str
    ClientToken: str


class ExecuteChangeSetRequest(ChangeSetIdentifier, total=False):
    """Request of ExecuteChangeSet."""

    ClientRequestToken: str
    DisableRollback: bool


class StackIdentifier(TypedDict):
    """A stack, by name or ARN."""

    StackName: str


class StackResourceIdentifier(StackIdentifier):
    """A resource of a stack, by its logical id."""

    LogicalResourceId: str


class StackResourcesRequest(TypedDict, total=False):
    """Request of DescribeStackResources: by the stack, or by the physical id of one resource."""

    StackName: str
    LogicalResourceId: str
    PhysicalResourceId: str


class GetTemplateRequest(TypedDict, total=False):
    """Request of GetTemplate: the template of a stack, or of a change set."""

    StackName: str
    ChangeSetName: str


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

    RetainResources: Sequence[str]
    DeletionMode: str
    ClientRequestToken: str


class DriftDetectionIdentifier(TypedDict):
    """A drift detection that was started."""

    StackDriftDetectionId: str


class ResourceDriftsRequest(StackIdentifier, total=False):
    """Request of DescribeStackResourceDrifts."""

    StackResourceDriftStatusFilters: Sequence[str]
