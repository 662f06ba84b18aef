"""Resource types for a network without a route to the internet."""

from __future__ import annotations

import orjson

from cloudft.endpoint.clients import ClientFactory
from cloudft.endpoint.cloudformation.records import StackResource
from cloudft.endpoint.cloudformation.resource_types import (
    RESOURCE_TYPES,
    Arguments,
    Properties,
    ResourceRequest,
    ResourceType,
    property_names,
    tags_of,
)
from cloudft.infra.intrinsics import CreatedResource


def _tag_specifications(request: ResourceRequest, kind: str) -> Arguments:
    """Return the argument with which EC2 tags what it creates."""
    tags = tags_of(request.properties)
    return {"TagSpecifications": [{"ResourceType": kind, "Tags": tags}]} if tags else {}


def _create_vpc(request: ResourceRequest) -> CreatedResource:
    ec2, properties = request.client("ec2"), request.properties
    created = ec2.create_vpc(
        CidrBlock=properties["CidrBlock"], **_tag_specifications(request, "vpc")
    )["Vpc"]
    for name in ("EnableDnsSupport", "EnableDnsHostnames"):
        if name in properties:
            ec2.modify_vpc_attribute(
                VpcId=created["VpcId"], **{name: {"Value": bool(properties[name])}}
            )
    return CreatedResource(
        created["VpcId"], {"VpcId": created["VpcId"], "CidrBlock": created["CidrBlock"]}
    )


RESOURCE_TYPES["AWS::EC2::VPC"] = ResourceType(
    property_names("CidrBlock", "EnableDnsHostnames", "EnableDnsSupport", "Tags"),
    _create_vpc,
    lambda client, resource: client("ec2").delete_vpc(VpcId=resource.physical),
)


def _create_subnet(request: ResourceRequest) -> CreatedResource:
    arguments = request.pick("VpcId", "CidrBlock", "AvailabilityZone")
    created = request.client("ec2").create_subnet(
        **arguments, **_tag_specifications(request, "subnet")
    )["Subnet"]
    return CreatedResource(created["SubnetId"], {"SubnetId": created["SubnetId"]})


RESOURCE_TYPES["AWS::EC2::Subnet"] = ResourceType(
    property_names("AvailabilityZone", "CidrBlock", "MapPublicIpOnLaunch", "Tags", "VpcId"),
    _create_subnet,
    lambda client, resource: client("ec2").delete_subnet(SubnetId=resource.physical),
)


def _create_route_table(request: ResourceRequest) -> CreatedResource:
    ec2 = request.client("ec2")
    tags = _tag_specifications(request, "route-table")
    created = ec2.create_route_table(VpcId=request.properties["VpcId"], **tags)["RouteTable"]
    return CreatedResource(created["RouteTableId"])


RESOURCE_TYPES["AWS::EC2::RouteTable"] = ResourceType(
    property_names("Tags", "VpcId"),
    _create_route_table,
    lambda client, resource: client("ec2").delete_route_table(RouteTableId=resource.physical),
)


def _associate_route_table(request: ResourceRequest) -> CreatedResource:
    arguments = request.pick("RouteTableId", "SubnetId")
    return CreatedResource(
        request.client("ec2").associate_route_table(**arguments)["AssociationId"]
    )


RESOURCE_TYPES["AWS::EC2::SubnetRouteTableAssociation"] = ResourceType(
    property_names("RouteTableId", "SubnetId"),
    _associate_route_table,
    lambda client, resource: client("ec2").disassociate_route_table(
        AssociationId=resource.physical
    ),
)


def _create_security_group(request: ResourceRequest) -> CreatedResource:
    ec2, properties = request.client("ec2"), request.properties
    created = ec2.create_security_group(
        GroupName=request.name,
        Description=properties["GroupDescription"],
        VpcId=properties["VpcId"],
        **_tag_specifications(request, "security-group"),
    )["GroupId"]
    # EC2 gives a new group a rule that allows all egress; CloudFormation removes it.
    everything = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    ec2.revoke_security_group_egress(GroupId=created, IpPermissions=everything)
    if rules := [_ip_permission(rule) for rule in properties.get("SecurityGroupIngress", ())]:
        ec2.authorize_security_group_ingress(GroupId=created, IpPermissions=rules)
    if rules := [_ip_permission(rule) for rule in properties.get("SecurityGroupEgress", ())]:
        ec2.authorize_security_group_egress(GroupId=created, IpPermissions=rules)
    return CreatedResource(created, {"GroupId": created, "VpcId": properties["VpcId"]})


def _ip_permission(rule: Properties) -> Arguments:
    """Return a rule by the names of EC2's API: for addresses, or for another group."""
    ports = {name: rule[name] for name in ("IpProtocol", "FromPort", "ToPort") if name in rule}
    described = {"Description": rule.get("Description", "")}
    group = rule.get("SourceSecurityGroupId") or rule.get("DestinationSecurityGroupId")
    if group:
        return {**ports, "UserIdGroupPairs": [{"GroupId": group, **described}]}
    return {**ports, "IpRanges": [{"CidrIp": rule["CidrIp"], **described}]}


RESOURCE_TYPES["AWS::EC2::SecurityGroup"] = ResourceType(
    property_names(
        "GroupDescription", "SecurityGroupEgress", "SecurityGroupIngress", "Tags", "VpcId"
    ),
    _create_security_group,
    lambda client, resource: client("ec2").delete_security_group(GroupId=resource.physical),
)


def _authorize_ingress(request: ResourceRequest) -> CreatedResource:
    group, rules = request.properties["GroupId"], [_ip_permission(request.properties)]
    request.client("ec2").authorize_security_group_ingress(GroupId=group, IpPermissions=rules)
    return CreatedResource(request.name)


def _revoke_ingress(client: ClientFactory, resource: StackResource) -> None:
    group, rules = resource.properties["GroupId"], [_ip_permission(resource.properties)]
    client("ec2").revoke_security_group_ingress(GroupId=group, IpPermissions=rules)


def _authorize_egress(request: ResourceRequest) -> CreatedResource:
    group, rules = request.properties["GroupId"], [_ip_permission(request.properties)]
    request.client("ec2").authorize_security_group_egress(GroupId=group, IpPermissions=rules)
    return CreatedResource(request.name)


def _revoke_egress(client: ClientFactory, resource: StackResource) -> None:
    group, rules = resource.properties["GroupId"], [_ip_permission(resource.properties)]
    client("ec2").revoke_security_group_egress(GroupId=group, IpPermissions=rules)


RULE_PROPERTIES = ("CidrIp", "Description", "FromPort", "GroupId", "IpProtocol", "ToPort")
RESOURCE_TYPES["AWS::EC2::SecurityGroupIngress"] = ResourceType(
    property_names(*RULE_PROPERTIES, "SourceSecurityGroupId"), _authorize_ingress, _revoke_ingress
)
RESOURCE_TYPES["AWS::EC2::SecurityGroupEgress"] = ResourceType(
    property_names(*RULE_PROPERTIES, "DestinationSecurityGroupId"),
    _authorize_egress,
    _revoke_egress,
)


def _create_vpc_endpoint(request: ResourceRequest) -> CreatedResource:
    properties = request.properties
    names = ("VpcId", "ServiceName", "VpcEndpointType", "RouteTableIds", "SubnetIds")
    arguments = request.pick(*names, "SecurityGroupIds", "PrivateDnsEnabled")
    if "PolicyDocument" in properties:
        arguments["PolicyDocument"] = orjson.dumps(properties["PolicyDocument"]).decode()
    created = request.client("ec2").create_vpc_endpoint(**arguments)["VpcEndpoint"]
    return CreatedResource(created["VpcEndpointId"])


def _delete_vpc_endpoint(client: ClientFactory, resource: StackResource) -> None:
    client("ec2").delete_vpc_endpoints(VpcEndpointIds=[resource.physical])


RESOURCE_TYPES["AWS::EC2::VPCEndpoint"] = ResourceType(
    property_names(
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
