"""Roles, their policies, and identity providers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import orjson

from cloudft.endpoint.cloudformation.records import StackResource
from cloudft.endpoint.cloudformation.resource_types import (
    RESOURCE_TYPES,
    ClientFactory,
    ResourceRequest,
    ResourceType,
    names_of,
    tags_of,
)
from cloudft.infra.intrinsics import CreatedResource

MANAGED_MAX, INLINE_MAX, TRUST_MAX = 6144, 10_240, 2048
"""Characters without white space of a managed policy, of all inline policies of a role, and of a
trust policy (IAM user guide, "IAM and AWS STS quotas")."""


def _to_json(document: Any) -> str:
    return orjson.dumps(document).decode()


def _within_quota(document: Any, most: int, what: str) -> str:
    """The document as text. Raises ValueError, in IAM's words, where IAM takes no more of it."""
    text = _to_json(document)
    if len(text) > most:
        raise ValueError(f"Cannot exceed quota for {what}: {most}")
    return text


def _create_role(asked: ResourceRequest) -> CreatedResource:
    iam, given = asked.client("iam"), asked.properties
    made = iam.create_role(
        RoleName=asked.name,
        AssumeRolePolicyDocument=_within_quota(
            given["AssumeRolePolicyDocument"], TRUST_MAX, "ACLSizePerRole"
        ),
        Tags=tags_of(given),
        **asked.pick("Description", "PermissionsBoundary"),
    )["Role"]
    _put_role_policies(asked, asked.name)
    return CreatedResource(asked.name, {"Arn": made["Arn"], "RoleId": made["RoleId"]})


def _put_role_policies(asked: ResourceRequest, role: str) -> None:
    iam, given = asked.client("iam"), asked.properties
    inline = [policy["PolicyDocument"] for policy in given.get("Policies", ())]
    if sum(map(len, map(_to_json, inline))) > INLINE_MAX:
        raise ValueError(f"Maximum policy size of {INLINE_MAX} bytes exceeded for role {role}")
    for policy in given.get("Policies", ()):
        document = _to_json(policy["PolicyDocument"])
        iam.put_role_policy(RoleName=role, PolicyName=policy["PolicyName"], PolicyDocument=document)
    for arn in given.get("ManagedPolicyArns", ()):
        iam.attach_role_policy(RoleName=role, PolicyArn=arn)


def _update_role(asked: ResourceRequest, piece: StackResource) -> None:
    trust = _to_json(asked.properties["AssumeRolePolicyDocument"])
    iam = asked.client("iam")
    iam.update_assume_role_policy(RoleName=piece.physical, PolicyDocument=trust)
    _remove_role_policies(iam, piece)
    _put_role_policies(asked, piece.physical)


def _remove_role_policies(iam: Any, piece: StackResource) -> None:
    """Take away what this resource gave; policies of other resources stay."""
    for policy in piece.properties.get("Policies", ()):
        iam.delete_role_policy(RoleName=piece.physical, PolicyName=policy["PolicyName"])
    for arn in piece.properties.get("ManagedPolicyArns", ()):
        iam.detach_role_policy(RoleName=piece.physical, PolicyArn=arn)


def _delete_role(services: ClientFactory, piece: StackResource) -> None:
    iam = services("iam")
    _remove_role_policies(iam, piece)
    iam.delete_role(RoleName=piece.physical)


def _role_drift(services: ClientFactory, piece: StackResource) -> list[str]:
    """Inline policies that differ from the template's."""
    iam = services("iam")
    said = {p["PolicyName"]: p["PolicyDocument"] for p in piece.properties.get("Policies", ())}
    there = {
        name: iam.get_role_policy(RoleName=piece.physical, PolicyName=name)["PolicyDocument"]
        for name in iam.list_role_policies(RoleName=piece.physical)["PolicyNames"]
        if name in said
    }
    return [] if there == said else ["Policies"]


RESOURCE_TYPES["AWS::IAM::Role"] = ResourceType(
    names_of(
        "AssumeRolePolicyDocument",
        "Description",
        "ManagedPolicyArns",
        "PermissionsBoundary",
        "Policies",
        "Tags",
    ),
    _create_role,
    _delete_role,
    _update_role,
    _role_drift,
)


def _put_role_policy(asked: ResourceRequest) -> CreatedResource:
    given = asked.properties
    asked.client("iam").put_role_policy(
        RoleName=given["RoleName"],
        PolicyName=given["PolicyName"],
        PolicyDocument=_to_json(given["PolicyDocument"]),
    )
    return CreatedResource(f"{given['RoleName']}|{given['PolicyName']}")


def _update_role_policy(asked: ResourceRequest, piece: StackResource) -> None:
    _put_role_policy(asked)


def _delete_role_policy(services: ClientFactory, piece: StackResource) -> None:
    role, _, name = piece.physical.partition("|")
    services("iam").delete_role_policy(RoleName=role, PolicyName=name)


RESOURCE_TYPES["AWS::IAM::RolePolicy"] = ResourceType(
    names_of("PolicyDocument", "PolicyName", "RoleName"),
    _put_role_policy,
    _delete_role_policy,
    _update_role_policy,
)


def _create_policy(asked: ResourceRequest) -> CreatedResource:
    document = _within_quota(asked.properties["PolicyDocument"], MANAGED_MAX, "PolicySize")
    described = asked.pick("Description")
    iam = asked.client("iam")
    made = iam.create_policy(PolicyName=asked.name, PolicyDocument=document, **described)
    arn = made["Policy"]["Arn"]
    _update_attachments(iam, arn, (), asked.properties.get("Roles", ()))
    return CreatedResource(arn, {"PolicyArn": arn})


def _update_attachments(
    iam: Any, arn: str, before: Collection[str], after: Collection[str]
) -> None:
    """To the roles that have it now, and no more to those that had it."""
    for role in set(before) - set(after):
        iam.detach_role_policy(RoleName=role, PolicyArn=arn)
    for role in set(after) - set(before):
        iam.attach_role_policy(RoleName=role, PolicyArn=arn)


def _delete_policy(services: ClientFactory, piece: StackResource) -> None:
    iam = services("iam")
    _update_attachments(iam, piece.physical, piece.properties.get("Roles", ()), ())
    iam.delete_policy(PolicyArn=piece.physical)


def _update_policy(asked: ResourceRequest, piece: StackResource) -> None:
    """A new version in force; the one before is not kept."""
    iam = asked.client("iam")
    document = _within_quota(asked.properties["PolicyDocument"], MANAGED_MAX, "PolicySize")
    roles = asked.properties.get("Roles", ())
    _update_attachments(iam, piece.physical, piece.properties.get("Roles", ()), roles)
    iam.create_policy_version(PolicyArn=piece.physical, PolicyDocument=document, SetAsDefault=True)
    for version in iam.list_policy_versions(PolicyArn=piece.physical)["Versions"]:
        if not version["IsDefaultVersion"]:
            iam.delete_policy_version(PolicyArn=piece.physical, VersionId=version["VersionId"])


RESOURCE_TYPES["AWS::IAM::ManagedPolicy"] = ResourceType(
    names_of("Description", "PolicyDocument", "Roles"),
    _create_policy,
    _delete_policy,
    _update_policy,
)


def _create_oidc_provider(asked: ResourceRequest) -> CreatedResource:
    given = asked.properties
    made = asked.client("iam").create_open_id_connect_provider(
        Url=given["Url"],
        ClientIDList=list(given["ClientIdList"]),
        ThumbprintList=list(given.get("ThumbprintList", ())),
    )
    return CreatedResource(
        made["OpenIDConnectProviderArn"], {"Arn": made["OpenIDConnectProviderArn"]}
    )


def _delete_oidc_provider(services: ClientFactory, piece: StackResource) -> None:
    iam = services("iam")
    iam.delete_open_id_connect_provider(OpenIDConnectProviderArn=piece.physical)


RESOURCE_TYPES["AWS::IAM::OIDCProvider"] = ResourceType(
    names_of("ClientIdList", "ThumbprintList", "Url"), _create_oidc_provider, _delete_oidc_provider
)
