"""Resource types of IAM: roles, policies and identity providers."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import orjson

from cloudft.endpoint.clients import ClientFactory
from cloudft.endpoint.cloudformation.records import StackResource
from cloudft.endpoint.cloudformation.resource_types import (
    RESOURCE_TYPES,
    ResourceRequest,
    ResourceType,
    property_names,
    tags_of,
)
from cloudft.infra.intrinsics import CreatedResource

if TYPE_CHECKING:
    from botocore.client import BaseClient

MANAGED_MAX, INLINE_MAX, TRUST_MAX = 6144, 10_240, 2048
"""Characters without white space of a managed policy, of all inline policies of a role, and of a
trust policy (IAM user guide, "IAM and AWS STS quotas")."""


def _to_json(document: object) -> str:
    return orjson.dumps(document).decode()


def _within_quota(document: object, maximum: int, quota: str) -> str:
    """Return the document as JSON. Raises ValueError, in IAM's words, if it is too long."""
    text = _to_json(document)
    if len(text) > maximum:
        raise ValueError(f"Cannot exceed quota for {quota}: {maximum}")
    return text


def _create_role(request: ResourceRequest) -> CreatedResource:
    iam, properties = request.client("iam"), request.properties
    created = iam.create_role(
        RoleName=request.name,
        AssumeRolePolicyDocument=_within_quota(
            properties["AssumeRolePolicyDocument"], TRUST_MAX, "ACLSizePerRole"
        ),
        Tags=tags_of(properties),
        **request.pick("Description", "PermissionsBoundary"),
    )["Role"]
    _put_role_policies(request, request.name)
    return CreatedResource(request.name, {"Arn": created["Arn"], "RoleId": created["RoleId"]})


def _put_role_policies(request: ResourceRequest, role: str) -> None:
    iam, properties = request.client("iam"), request.properties
    inline = [policy["PolicyDocument"] for policy in properties.get("Policies", ())]
    if sum(map(len, map(_to_json, inline))) > INLINE_MAX:
        raise ValueError(f"Maximum policy size of {INLINE_MAX} bytes exceeded for role {role}")
    for policy in properties.get("Policies", ()):
        document = _to_json(policy["PolicyDocument"])
        iam.put_role_policy(RoleName=role, PolicyName=policy["PolicyName"], PolicyDocument=document)
    for arn in properties.get("ManagedPolicyArns", ()):
        iam.attach_role_policy(RoleName=role, PolicyArn=arn)


def _update_role(request: ResourceRequest, resource: StackResource) -> None:
    properties, role = request.properties, {"RoleName": resource.physical}
    trust = _to_json(properties["AssumeRolePolicyDocument"])
    iam = request.client("iam")
    iam.update_assume_role_policy(**role, PolicyDocument=trust)
    iam.update_role(**role, Description=properties.get("Description", ""))
    if "PermissionsBoundary" in properties:
        boundary = properties["PermissionsBoundary"]
        iam.put_role_permissions_boundary(**role, PermissionsBoundary=boundary)
    elif "PermissionsBoundary" in resource.properties:
        iam.delete_role_permissions_boundary(**role)
    iam.untag_role(**role, TagKeys=[tag["Key"] for tag in tags_of(resource.properties)])
    iam.tag_role(**role, Tags=tags_of(properties))
    _remove_role_policies(iam, resource)
    _put_role_policies(request, resource.physical)


def _remove_role_policies(iam: BaseClient, resource: StackResource) -> None:
    """Remove the policies that this resource attached; those of other resources stay."""
    for policy in resource.properties.get("Policies", ()):
        iam.delete_role_policy(RoleName=resource.physical, PolicyName=policy["PolicyName"])
    for arn in resource.properties.get("ManagedPolicyArns", ()):
        iam.detach_role_policy(RoleName=resource.physical, PolicyArn=arn)


def _delete_role(client: ClientFactory, resource: StackResource) -> None:
    iam = client("iam")
    _remove_role_policies(iam, resource)
    iam.delete_role(RoleName=resource.physical)


def _role_drift(client: ClientFactory, resource: StackResource) -> list[str]:
    """Return `Policies` if an inline policy differs from the template's."""
    iam = client("iam")
    expected = {
        p["PolicyName"]: p["PolicyDocument"] for p in resource.properties.get("Policies", ())
    }
    actual = {
        name: iam.get_role_policy(RoleName=resource.physical, PolicyName=name)["PolicyDocument"]
        for name in iam.list_role_policies(RoleName=resource.physical)["PolicyNames"]
        if name in expected
    }
    return [] if actual == expected else ["Policies"]


RESOURCE_TYPES["AWS::IAM::Role"] = ResourceType(
    property_names(
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


def _put_role_policy(request: ResourceRequest) -> CreatedResource:
    properties = request.properties
    request.client("iam").put_role_policy(
        RoleName=properties["RoleName"],
        PolicyName=properties["PolicyName"],
        PolicyDocument=_to_json(properties["PolicyDocument"]),
    )
    return CreatedResource(f"{properties['RoleName']}|{properties['PolicyName']}")


def _update_role_policy(request: ResourceRequest, resource: StackResource) -> None:
    _put_role_policy(request)


def _delete_role_policy(client: ClientFactory, resource: StackResource) -> None:
    role, _, name = resource.physical.partition("|")
    client("iam").delete_role_policy(RoleName=role, PolicyName=name)


RESOURCE_TYPES["AWS::IAM::RolePolicy"] = ResourceType(
    property_names("PolicyDocument", "PolicyName", "RoleName"),
    _put_role_policy,
    _delete_role_policy,
    _update_role_policy,
)


def _create_policy(request: ResourceRequest) -> CreatedResource:
    document = _within_quota(request.properties["PolicyDocument"], MANAGED_MAX, "PolicySize")
    described = request.pick("Description")
    iam = request.client("iam")
    created = iam.create_policy(PolicyName=request.name, PolicyDocument=document, **described)
    arn = created["Policy"]["Arn"]
    _update_attachments(iam, arn, (), request.properties.get("Roles", ()))
    return CreatedResource(arn, {"PolicyArn": arn})


def _update_attachments(
    iam: BaseClient, arn: str, before: Collection[str], after: Collection[str]
) -> None:
    """Detach a policy from roles that no longer have it, and attach it to new ones."""
    for role in set(before) - set(after):
        iam.detach_role_policy(RoleName=role, PolicyArn=arn)
    for role in set(after) - set(before):
        iam.attach_role_policy(RoleName=role, PolicyArn=arn)


def _delete_policy(client: ClientFactory, resource: StackResource) -> None:
    iam = client("iam")
    _update_attachments(iam, resource.physical, resource.properties.get("Roles", ()), ())
    iam.delete_policy(PolicyArn=resource.physical)


def _update_policy(request: ResourceRequest, resource: StackResource) -> None:
    """Create a new default version, and delete the older ones."""
    iam = request.client("iam")
    document = _within_quota(request.properties["PolicyDocument"], MANAGED_MAX, "PolicySize")
    roles = request.properties.get("Roles", ())
    _update_attachments(iam, resource.physical, resource.properties.get("Roles", ()), roles)
    iam.create_policy_version(
        PolicyArn=resource.physical, PolicyDocument=document, SetAsDefault=True
    )
    for version in iam.list_policy_versions(PolicyArn=resource.physical)["Versions"]:
        if not version["IsDefaultVersion"]:
            iam.delete_policy_version(PolicyArn=resource.physical, VersionId=version["VersionId"])


RESOURCE_TYPES["AWS::IAM::ManagedPolicy"] = ResourceType(
    property_names("Description", "PolicyDocument", "Roles"),
    _create_policy,
    _delete_policy,
    _update_policy,
)


def _create_oidc_provider(request: ResourceRequest) -> CreatedResource:
    properties = request.properties
    created = request.client("iam").create_open_id_connect_provider(
        Url=properties["Url"],
        ClientIDList=list(properties["ClientIdList"]),
        ThumbprintList=list(properties.get("ThumbprintList", ())),
    )
    return CreatedResource(
        created["OpenIDConnectProviderArn"], {"Arn": created["OpenIDConnectProviderArn"]}
    )


def _delete_oidc_provider(client: ClientFactory, resource: StackResource) -> None:
    iam = client("iam")
    iam.delete_open_id_connect_provider(OpenIDConnectProviderArn=resource.physical)


RESOURCE_TYPES["AWS::IAM::OIDCProvider"] = ResourceType(
    property_names("ClientIdList", "ThumbprintList", "Url"),
    _create_oidc_provider,
    _delete_oidc_provider,
)
