"""Resource types of Step Functions and EventBridge Scheduler: state machines and schedules."""

from __future__ import annotations

import orjson

from cloudft.endpoint.clients import ClientFactory
from cloudft.endpoint.cloudformation.records import StackResource
from cloudft.endpoint.cloudformation.resource_types import (
    RESOURCE_TYPES,
    ResourceRequest,
    ResourceType,
    property_names,
)
from cloudft.infra.intrinsics import CreatedResource


def _create_state_machine(request: ResourceRequest) -> CreatedResource:
    properties = request.properties
    definition = orjson.dumps(properties["Definition"]).decode()
    for name, value in properties.get("DefinitionSubstitutions", {}).items():
        definition = definition.replace(f"${{{name}}}", str(value))
    name = properties.get("StateMachineName", request.name)
    created = request.client("stepfunctions").create_state_machine(
        name=name, definition=definition, roleArn=properties["RoleArn"]
    )
    return CreatedResource(
        created["stateMachineArn"], {"Arn": created["stateMachineArn"], "Name": name}
    )


def _delete_state_machine(client: ClientFactory, resource: StackResource) -> None:
    client("stepfunctions").delete_state_machine(stateMachineArn=resource.physical)


RESOURCE_TYPES["AWS::StepFunctions::StateMachine"] = ResourceType(
    property_names(
        "Definition",
        "DefinitionSubstitutions",
        "LoggingConfiguration",
        "RoleArn",
        "StateMachineName",
        "StateMachineType",
        "Tags",
    ),
    _create_state_machine,
    _delete_state_machine,
)


def _create_schedule(request: ResourceRequest) -> CreatedResource:
    properties = request.properties
    created = request.client("scheduler").create_schedule(
        Name=request.name,
        ScheduleExpression=properties["ScheduleExpression"],
        FlexibleTimeWindow=dict(properties["FlexibleTimeWindow"]),
        Target=dict(properties["Target"]),
        **request.pick("Description"),
    )
    return CreatedResource(request.name, {"Arn": created["ScheduleArn"]})


RESOURCE_TYPES["AWS::Scheduler::Schedule"] = ResourceType(
    property_names("Description", "FlexibleTimeWindow", "ScheduleExpression", "Target"),
    _create_schedule,
    lambda client, resource: client("scheduler").delete_schedule(Name=resource.physical),
)
