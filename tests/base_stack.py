"""Resolve the base stack's template without AWS: its resources, and its policies as statements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cloudft.infra import template as templates
from cloudft.infra.intrinsics import CreatedResource, TemplateScope

ACCOUNT, REGION = "000000000000", "us-east-1"
PSEUDO = {
    "AWS::AccountId": ACCOUNT,
    "AWS::Partition": "aws",
    "AWS::Region": REGION,
    "AWS::StackId": f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/team/1",
    "AWS::StackName": "team",
}
ALL_OPTIONS = {
    "WithVpc": "yes",
    "WithInterfaceEndpoints": "yes",
    "NotifyEmail": "team@example.com",
    "MonthlyBudgetUsd": "50",
    "GitHubRepository": "example/router",
    "TeacherModelArns": f"arn:aws:bedrock:{REGION}::foundation-model/amazon.nova-pro-v1:0",
    "GraderFunctionArn": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:grade",
}
"""Parameter values that create every resource of the template."""
BASE: dict[str, Any] = templates.parse_template(templates.load_template_text("base"))


def created_resource(name: str, kind: str) -> CreatedResource:
    """Return a resource with the kind of name and ARN that AWS would give it."""
    small = f"team-{name.lower()}"
    service = {
        "AWS::S3::Bucket": f"arn:aws:s3:::{small}",
        "AWS::KMS::Key": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{'0' * 36}",
        "AWS::IAM::Role": f"arn:aws:iam::{ACCOUNT}:role/team-{name}",
        "AWS::Logs::LogGroup": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/cloudft/team/x:*",
    }
    arn = service.get(kind, f"arn:aws:x:{REGION}:{ACCOUNT}:{small}")
    ref = {"AWS::S3::Bucket": small, "AWS::KMS::Key": "0" * 36}.get(kind, f"team-{name}")
    return CreatedResource(ref, {"Arn": arn, "CidrBlock": "10.87.0.0/24"})


def base_scope(given: Mapping[str, str]) -> TemplateScope:
    """Return the base template with every resource created."""
    created = {
        name: created_resource(name, resource["Type"])
        for name, resource in BASE["Resources"].items()
    }
    return TemplateScope(BASE, given, PSEUDO, created, lambda: ["us-east-1a", "us-east-1b"])


def resolve_resources(given: Mapping[str, str]) -> dict[str, Any]:
    """Return every active resource with its properties resolved."""
    scope = base_scope(given)
    return {
        name: {**resource, "Properties": scope.resolve(resource["Properties"])}
        for name, resource in scope.active_resources().items()
    }


def policy_statements(given: Mapping[str, str], role: str) -> list[dict[str, Any]]:
    """Return all policy statements of a role or of a managed policy."""
    everything = resolve_resources(given)
    properties = everything[role]["Properties"]
    if "PolicyDocument" in properties:
        return list(properties["PolicyDocument"]["Statement"])
    inline = [p["PolicyDocument"]["Statement"] for p in properties["Policies"]]
    more = [
        resource["Properties"]["PolicyDocument"]["Statement"]
        for resource in everything.values()
        if resource["Type"] == "AWS::IAM::RolePolicy"
        and resource["Properties"]["RoleName"] == f"team-{role}"
    ]
    return [statement for group in (*inline, *more) for statement in group]


def people_statements(given: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the statements of the three policies for people."""
    names = ("CiPolicy", "SubmitterPolicy", "ServingPolicy")
    return [statement for name in names for statement in policy_statements(given, name)]


def resolve_outputs(given: Mapping[str, str]) -> dict[str, str]:
    """Return the outputs that a job file reads from the stack."""
    return base_scope(given).resolve_outputs()


def without_action(
    statements: Sequence[Mapping[str, Any]], sid: str, action: str
) -> list[dict[str, Any]]:
    """Return the same statements without one action of one of them."""
    kept = []
    for statement in statements:
        actions = statement["Action"]
        actions = [actions] if isinstance(actions, str) else list(actions)
        if statement["Sid"] == sid:
            actions = [one for one in actions if one != action]
        if actions:
            kept.append({**statement, "Action": actions})
    return kept


def list_permissions(statements: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return each action of each statement as (Sid, action)."""
    return [
        (statement["Sid"], action)
        for statement in statements
        for action in (
            [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        )
    ]
