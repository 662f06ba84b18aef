"""Networks without a way out."""

from __future__ import annotations

from typing import Any

import orjson

from cloudft.endpoint.stacks.records import Piece
from cloudft.endpoint.stacks.types import TYPES, Asked, Services, Type, known, tags_of
from cloudft.infrastructure.evaluate import Made


def _tags(asked: Asked, kind: str) -> dict[str, Any]:
    tags = tags_of(asked.properties)
    return {"TagSpecifications": [{"ResourceType": kind, "Tags": tags}]} if tags else {}


def _make_vpc(asked: Asked) -> Made:
    ec2, given = asked.services("ec2"), asked.properties
    made = ec2.create_vpc(CidrBlock=given["CidrBlock"], **_tags(asked, "vpc"))["Vpc"]
    for name in ("EnableDnsSupport", "EnableDnsHostnames"):
        if name in given:
            ec2.modify_vpc_attribute(VpcId=made["VpcId"], **{name: {"Value": bool(given[name])}})
    return Made(made["VpcId"], {"VpcId": made["VpcId"], "CidrBlock": made["CidrBlock"]})


TYPES["AWS::EC2::VPC"] = Type(
    known("CidrBlock", "EnableDnsHostnames", "EnableDnsSupport", "Tags"),
    _make_vpc,
    lambda services, piece: services("ec2").delete_vpc(VpcId=piece.physical),
)


def _make_subnet(asked: Asked) -> Made:
    kept = asked.take("VpcId", "CidrBlock", "AvailabilityZone")
    made = asked.services("ec2").create_subnet(**kept, **_tags(asked, "subnet"))["Subnet"]
    return Made(made["SubnetId"], {"SubnetId": made["SubnetId"]})


TYPES["AWS::EC2::Subnet"] = Type(
    known("AvailabilityZone", "CidrBlock", "MapPublicIpOnLaunch", "Tags", "VpcId"),
    _make_subnet,
    lambda services, piece: services("ec2").delete_subnet(SubnetId=piece.physical),
)


def _make_route_table(asked: Asked) -> Made:
    ec2 = asked.services("ec2")
    tags = _tags(asked, "route-table")
    made = ec2.create_route_table(VpcId=asked.properties["VpcId"], **tags)["RouteTable"]
    return Made(made["RouteTableId"])


TYPES["AWS::EC2::RouteTable"] = Type(
    known("Tags", "VpcId"),
    _make_route_table,
    lambda services, piece: services("ec2").delete_route_table(RouteTableId=piece.physical),
)


def _associate(asked: Asked) -> Made:
    kept = asked.take("RouteTableId", "SubnetId")
    return Made(asked.services("ec2").associate_route_table(**kept)["AssociationId"])


TYPES["AWS::EC2::SubnetRouteTableAssociation"] = Type(
    known("RouteTableId", "SubnetId"),
    _associate,
    lambda services, piece: services("ec2").disassociate_route_table(AssociationId=piece.physical),
)


def _make_group(asked: Asked) -> Made:
    ec2, given = asked.services("ec2"), asked.properties
    made = ec2.create_security_group(
        GroupName=asked.name,
        Description=given["GroupDescription"],
        VpcId=given["VpcId"],
        **_tags(asked, "security-group"),
    )["GroupId"]
    everything = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    ec2.revoke_security_group_egress(GroupId=made, IpPermissions=everything)
    if rules := [_rule(rule) for rule in given.get("SecurityGroupIngress", ())]:
        ec2.authorize_security_group_ingress(GroupId=made, IpPermissions=rules)
    if rules := [_rule(rule) for rule in given.get("SecurityGroupEgress", ())]:
        ec2.authorize_security_group_egress(GroupId=made, IpPermissions=rules)
    return Made(made, {"GroupId": made, "VpcId": given["VpcId"]})


def _rule(rule: Any) -> dict[str, Any]:
    """A rule in EC2's own words: to or from addresses, or another group."""
    said = {name: rule[name] for name in ("IpProtocol", "FromPort", "ToPort") if name in rule}
    described = {"Description": rule.get("Description", "")}
    group = rule.get("SourceSecurityGroupId") or rule.get("DestinationSecurityGroupId")
    if group:
        return {**said, "UserIdGroupPairs": [{"GroupId": group, **described}]}
    return {**said, "IpRanges": [{"CidrIp": rule["CidrIp"], **described}]}


TYPES["AWS::EC2::SecurityGroup"] = Type(
    known("GroupDescription", "SecurityGroupEgress", "SecurityGroupIngress", "Tags", "VpcId"),
    _make_group,
    lambda services, piece: services("ec2").delete_security_group(GroupId=piece.physical),
)


def _let_in(asked: Asked) -> Made:
    group, rules = asked.properties["GroupId"], [_rule(asked.properties)]
    asked.services("ec2").authorize_security_group_ingress(GroupId=group, IpPermissions=rules)
    return Made(asked.name)


def _let_in_no_more(services: Services, piece: Piece) -> None:
    group, rules = piece.properties["GroupId"], [_rule(piece.properties)]
    services("ec2").revoke_security_group_ingress(GroupId=group, IpPermissions=rules)


def _let_out(asked: Asked) -> Made:
    group, rules = asked.properties["GroupId"], [_rule(asked.properties)]
    asked.services("ec2").authorize_security_group_egress(GroupId=group, IpPermissions=rules)
    return Made(asked.name)


def _let_out_no_more(services: Services, piece: Piece) -> None:
    group, rules = piece.properties["GroupId"], [_rule(piece.properties)]
    services("ec2").revoke_security_group_egress(GroupId=group, IpPermissions=rules)


RULE = ("CidrIp", "Description", "FromPort", "GroupId", "IpProtocol", "ToPort")
TYPES["AWS::EC2::SecurityGroupIngress"] = Type(
    known(*RULE, "SourceSecurityGroupId"), _let_in, _let_in_no_more
)
TYPES["AWS::EC2::SecurityGroupEgress"] = Type(
    known(*RULE, "DestinationSecurityGroupId"), _let_out, _let_out_no_more
)


def _make_endpoint(asked: Asked) -> Made:
    given = asked.properties
    names = ("VpcId", "ServiceName", "VpcEndpointType", "RouteTableIds", "SubnetIds")
    kept = asked.take(*names, "SecurityGroupIds", "PrivateDnsEnabled")
    if "PolicyDocument" in given:
        kept["PolicyDocument"] = orjson.dumps(given["PolicyDocument"]).decode()
    made = asked.services("ec2").create_vpc_endpoint(**kept)["VpcEndpoint"]
    return Made(made["VpcEndpointId"])


def _remove_endpoint(services: Services, piece: Piece) -> None:
    services("ec2").delete_vpc_endpoints(VpcEndpointIds=[piece.physical])


TYPES["AWS::EC2::VPCEndpoint"] = Type(
    known(
        "PolicyDocument",
        "PrivateDnsEnabled",
        "RouteTableIds",
        "SecurityGroupIds",
        "ServiceName",
        "SubnetIds",
        "VpcEndpointType",
        "VpcId",
    ),
    _make_endpoint,
    _remove_endpoint,
)
