"""Roles, their policies, and identity providers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import orjson

from cloudft.endpoint.stacks.records import Piece
from cloudft.endpoint.stacks.types import TYPES, Asked, Services, Type, known, tags_of
from cloudft.infrastructure.evaluate import Made

MANAGED_MAX, INLINE_MAX, TRUST_MAX = 6144, 10_240, 2048
"""Characters without white space of a managed policy, of all inline policies of a role, and of a
trust policy (IAM user guide, "IAM and AWS STS quotas")."""


def _text(document: Any) -> str:
    return orjson.dumps(document).decode()


def _fitting(document: Any, most: int, what: str) -> str:
    """The document as text. Raises ValueError, in IAM's words, where IAM takes no more of it."""
    text = _text(document)
    if len(text) > most:
        raise ValueError(f"Cannot exceed quota for {what}: {most}")
    return text


def _make_role(asked: Asked) -> Made:
    iam, given = asked.services("iam"), asked.properties
    made = iam.create_role(
        RoleName=asked.name,
        AssumeRolePolicyDocument=_fitting(
            given["AssumeRolePolicyDocument"], TRUST_MAX, "ACLSizePerRole"
        ),
        Tags=tags_of(given),
        **asked.take("Description", "PermissionsBoundary"),
    )["Role"]
    _grant(asked, asked.name)
    return Made(asked.name, {"Arn": made["Arn"], "RoleId": made["RoleId"]})


def _grant(asked: Asked, role: str) -> None:
    iam, given = asked.services("iam"), asked.properties
    inline = [policy["PolicyDocument"] for policy in given.get("Policies", ())]
    if sum(map(len, map(_text, inline))) > INLINE_MAX:
        raise ValueError(f"Maximum policy size of {INLINE_MAX} bytes exceeded for role {role}")
    for policy in given.get("Policies", ()):
        document = _text(policy["PolicyDocument"])
        iam.put_role_policy(RoleName=role, PolicyName=policy["PolicyName"], PolicyDocument=document)
    for arn in given.get("ManagedPolicyArns", ()):
        iam.attach_role_policy(RoleName=role, PolicyArn=arn)


def _update_role(asked: Asked, piece: Piece) -> None:
    trust = _text(asked.properties["AssumeRolePolicyDocument"])
    iam = asked.services("iam")
    iam.update_assume_role_policy(RoleName=piece.physical, PolicyDocument=trust)
    _revoke(iam, piece)
    _grant(asked, piece.physical)


def _revoke(iam: Any, piece: Piece) -> None:
    """Take away what this resource gave; policies of other resources stay."""
    for policy in piece.properties.get("Policies", ()):
        iam.delete_role_policy(RoleName=piece.physical, PolicyName=policy["PolicyName"])
    for arn in piece.properties.get("ManagedPolicyArns", ()):
        iam.detach_role_policy(RoleName=piece.physical, PolicyArn=arn)


def _remove_role(services: Services, piece: Piece) -> None:
    iam = services("iam")
    _revoke(iam, piece)
    iam.delete_role(RoleName=piece.physical)


def _role_drift(services: Services, piece: Piece) -> list[str]:
    """Inline policies that differ from the template's."""
    iam = services("iam")
    said = {p["PolicyName"]: p["PolicyDocument"] for p in piece.properties.get("Policies", ())}
    there = {
        name: iam.get_role_policy(RoleName=piece.physical, PolicyName=name)["PolicyDocument"]
        for name in iam.list_role_policies(RoleName=piece.physical)["PolicyNames"]
        if name in said
    }
    return [] if there == said else ["Policies"]


TYPES["AWS::IAM::Role"] = Type(
    known(
        "AssumeRolePolicyDocument",
        "Description",
        "ManagedPolicyArns",
        "PermissionsBoundary",
        "Policies",
        "Tags",
    ),
    _make_role,
    _remove_role,
    _update_role,
    _role_drift,
)


def _put_role_policy(asked: Asked) -> Made:
    given = asked.properties
    asked.services("iam").put_role_policy(
        RoleName=given["RoleName"],
        PolicyName=given["PolicyName"],
        PolicyDocument=_text(given["PolicyDocument"]),
    )
    return Made(f"{given['RoleName']}|{given['PolicyName']}")


def _change_role_policy(asked: Asked, piece: Piece) -> None:
    _put_role_policy(asked)


def _remove_role_policy(services: Services, piece: Piece) -> None:
    role, _, name = piece.physical.partition("|")
    services("iam").delete_role_policy(RoleName=role, PolicyName=name)


TYPES["AWS::IAM::RolePolicy"] = Type(
    known("PolicyDocument", "PolicyName", "RoleName"),
    _put_role_policy,
    _remove_role_policy,
    _change_role_policy,
)


def _make_policy(asked: Asked) -> Made:
    document = _fitting(asked.properties["PolicyDocument"], MANAGED_MAX, "PolicySize")
    described = asked.take("Description")
    iam = asked.services("iam")
    made = iam.create_policy(PolicyName=asked.name, PolicyDocument=document, **described)
    arn = made["Policy"]["Arn"]
    _attach(iam, arn, (), asked.properties.get("Roles", ()))
    return Made(arn, {"PolicyArn": arn})


def _attach(iam: Any, arn: str, before: Collection[str], after: Collection[str]) -> None:
    """To the roles that have it now, and no more to those that had it."""
    for role in set(before) - set(after):
        iam.detach_role_policy(RoleName=role, PolicyArn=arn)
    for role in set(after) - set(before):
        iam.attach_role_policy(RoleName=role, PolicyArn=arn)


def _remove_policy(services: Services, piece: Piece) -> None:
    iam = services("iam")
    _attach(iam, piece.physical, piece.properties.get("Roles", ()), ())
    iam.delete_policy(PolicyArn=piece.physical)


def _update_policy(asked: Asked, piece: Piece) -> None:
    """A new version in force; the one before is not kept."""
    iam = asked.services("iam")
    document = _fitting(asked.properties["PolicyDocument"], MANAGED_MAX, "PolicySize")
    roles = asked.properties.get("Roles", ())
    _attach(iam, piece.physical, piece.properties.get("Roles", ()), roles)
    iam.create_policy_version(PolicyArn=piece.physical, PolicyDocument=document, SetAsDefault=True)
    for version in iam.list_policy_versions(PolicyArn=piece.physical)["Versions"]:
        if not version["IsDefaultVersion"]:
            iam.delete_policy_version(PolicyArn=piece.physical, VersionId=version["VersionId"])


TYPES["AWS::IAM::ManagedPolicy"] = Type(
    known("Description", "PolicyDocument", "Roles"),
    _make_policy,
    _remove_policy,
    _update_policy,
)


def _make_provider(asked: Asked) -> Made:
    given = asked.properties
    made = asked.services("iam").create_open_id_connect_provider(
        Url=given["Url"],
        ClientIDList=list(given["ClientIdList"]),
        ThumbprintList=list(given.get("ThumbprintList", ())),
    )
    return Made(made["OpenIDConnectProviderArn"], {"Arn": made["OpenIDConnectProviderArn"]})


def _remove_provider(services: Services, piece: Piece) -> None:
    iam = services("iam")
    iam.delete_open_id_connect_provider(OpenIDConnectProviderArn=piece.physical)


TYPES["AWS::IAM::OIDCProvider"] = Type(
    known("ClientIdList", "ThumbprintList", "Url"), _make_provider, _remove_provider
)
