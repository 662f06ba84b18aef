"""Networks without a way out."""

from __future__ import annotations

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


def _tag_specifications(asked: ResourceRequest, kind: str) -> dict[str, Any]:
    tags = tags_of(asked.properties)
    return {"TagSpecifications": [{"ResourceType": kind, "Tags": tags}]} if tags else {}


def _create_vpc(asked: ResourceRequest) -> CreatedResource:
    ec2, given = asked.client("ec2"), asked.properties
    made = ec2.create_vpc(CidrBlock=given["CidrBlock"], **_tag_specifications(asked, "vpc"))["Vpc"]
    for name in ("EnableDnsSupport", "EnableDnsHostnames"):
        if name in given:
            ec2.modify_vpc_attribute(VpcId=made["VpcId"], **{name: {"Value": bool(given[name])}})
    return CreatedResource(made["VpcId"], {"VpcId": made["VpcId"], "CidrBlock": made["CidrBlock"]})


RESOURCE_TYPES["AWS::EC2::VPC"] = ResourceType(
    names_of("CidrBlock", "EnableDnsHostnames", "EnableDnsSupport", "Tags"),
    _create_vpc,
    lambda services, piece: services("ec2").delete_vpc(VpcId=piece.physical),
)


def _create_subnet(asked: ResourceRequest) -> CreatedResource:
    kept = asked.pick("VpcId", "CidrBlock", "AvailabilityZone")
    made = asked.client("ec2").create_subnet(**kept, **_tag_specifications(asked, "subnet"))[
        "Subnet"
    ]
    return CreatedResource(made["SubnetId"], {"SubnetId": made["SubnetId"]})


RESOURCE_TYPES["AWS::EC2::Subnet"] = ResourceType(
    names_of("AvailabilityZone", "CidrBlock", "MapPublicIpOnLaunch", "Tags", "VpcId"),
    _create_subnet,
    lambda services, piece: services("ec2").delete_subnet(SubnetId=piece.physical),
)


def _create_route_table(asked: ResourceRequest) -> CreatedResource:
    ec2 = asked.client("ec2")
    tags = _tag_specifications(asked, "route-table")
    made = ec2.create_route_table(VpcId=asked.properties["VpcId"], **tags)["RouteTable"]
    return CreatedResource(made["RouteTableId"])


RESOURCE_TYPES["AWS::EC2::RouteTable"] = ResourceType(
    names_of("Tags", "VpcId"),
    _create_route_table,
    lambda services, piece: services("ec2").delete_route_table(RouteTableId=piece.physical),
)


def _associate_route_table(asked: ResourceRequest) -> CreatedResource:
    kept = asked.pick("RouteTableId", "SubnetId")
    return CreatedResource(asked.client("ec2").associate_route_table(**kept)["AssociationId"])


RESOURCE_TYPES["AWS::EC2::SubnetRouteTableAssociation"] = ResourceType(
    names_of("RouteTableId", "SubnetId"),
    _associate_route_table,
    lambda services, piece: services("ec2").disassociate_route_table(AssociationId=piece.physical),
)


def _create_security_group(asked: ResourceRequest) -> CreatedResource:
    ec2, given = asked.client("ec2"), asked.properties
    made = ec2.create_security_group(
        GroupName=asked.name,
        Description=given["GroupDescription"],
        VpcId=given["VpcId"],
        **_tag_specifications(asked, "security-group"),
    )["GroupId"]
    everything = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    ec2.revoke_security_group_egress(GroupId=made, IpPermissions=everything)
    if rules := [_ip_permission(rule) for rule in given.get("SecurityGroupIngress", ())]:
        ec2.authorize_security_group_ingress(GroupId=made, IpPermissions=rules)
    if rules := [_ip_permission(rule) for rule in given.get("SecurityGroupEgress", ())]:
        ec2.authorize_security_group_egress(GroupId=made, IpPermissions=rules)
    return CreatedResource(made, {"GroupId": made, "VpcId": given["VpcId"]})


def _ip_permission(rule: Any) -> dict[str, Any]:
    """A rule in EC2's own words: to or from addresses, or another group."""
    said = {name: rule[name] for name in ("IpProtocol", "FromPort", "ToPort") if name in rule}
    described = {"Description": rule.get("Description", "")}
    group = rule.get("SourceSecurityGroupId") or rule.get("DestinationSecurityGroupId")
    if group:
        return {**said, "UserIdGroupPairs": [{"GroupId": group, **described}]}
    return {**said, "IpRanges": [{"CidrIp": rule["CidrIp"], **described}]}


RESOURCE_TYPES["AWS::EC2::SecurityGroup"] = ResourceType(
    names_of("GroupDescription", "SecurityGroupEgress", "SecurityGroupIngress", "Tags", "VpcId"),
    _create_security_group,
    lambda services, piece: services("ec2").delete_security_group(GroupId=piece.physical),
)


def _authorize_ingress(asked: ResourceRequest) -> CreatedResource:
    group, rules = asked.properties["GroupId"], [_ip_permission(asked.properties)]
    asked.client("ec2").authorize_security_group_ingress(GroupId=group, IpPermissions=rules)
    return CreatedResource(asked.name)


def _revoke_ingress(services: ClientFactory, piece: StackResource) -> None:
    group, rules = piece.properties["GroupId"], [_ip_permission(piece.properties)]
    services("ec2").revoke_security_group_ingress(GroupId=group, IpPermissions=rules)


def _authorize_egress(asked: ResourceRequest) -> CreatedResource:
    group, rules = asked.properties["GroupId"], [_ip_permission(asked.properties)]
    asked.client("ec2").authorize_security_group_egress(GroupId=group, IpPermissions=rules)
    return CreatedResource(asked.name)


def _revoke_egress(services: ClientFactory, piece: StackResource) -> None:
    group, rules = piece.properties["GroupId"], [_ip_permission(piece.properties)]
    services("ec2").revoke_security_group_egress(GroupId=group, IpPermissions=rules)


RULE_PROPERTIES = ("CidrIp", "Description", "FromPort", "GroupId", "IpProtocol", "ToPort")
RESOURCE_TYPES["AWS::EC2::SecurityGroupIngress"] = ResourceType(
    names_of(*RULE_PROPERTIES, "SourceSecurityGroupId"), _authorize_ingress, _revoke_ingress
)
RESOURCE_TYPES["AWS::EC2::SecurityGroupEgress"] = ResourceType(
    names_of(*RULE_PROPERTIES, "DestinationSecurityGroupId"), _authorize_egress, _revoke_egress
)


def _create_vpc_endpoint(asked: ResourceRequest) -> CreatedResource:
    given = asked.properties
    names = ("VpcId", "ServiceName", "VpcEndpointType", "RouteTableIds", "SubnetIds")
    kept = asked.pick(*names, "SecurityGroupIds", "PrivateDnsEnabled")
    if "PolicyDocument" in given:
        kept["PolicyDocument"] = orjson.dumps(given["PolicyDocument"]).decode()
    made = asked.client("ec2").create_vpc_endpoint(**kept)["VpcEndpoint"]
    return CreatedResource(made["VpcEndpointId"])


def _delete_vpc_endpoint(services: ClientFactory, piece: StackResource) -> None:
    services("ec2").delete_vpc_endpoints(VpcEndpointIds=[piece.physical])


RESOURCE_TYPES["AWS::EC2::VPCEndpoint"] = ResourceType(
    names_of(
        "PolicyDocument",
        "PrivateDnsEnabled",
        "RouteTableIds",
        "SecurityGroupIds",
        "ServiceName",
        "SubnetIds",
        "VpcEndpointType",
        "VpcId",
    ),
    _create_vpc_endpoint,
    _delete_vpc_endpoint,
)
