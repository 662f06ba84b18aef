"""State machines, and what starts them by the clock."""

from __future__ import annotations

import orjson

from cloudft.endpoint.cloudformation.records import StackResource
from cloudft.endpoint.cloudformation.resource_types import (
    RESOURCE_TYPES,
    ClientFactory,
    ResourceRequest,
    ResourceType,
    names_of,
)
from cloudft.infra.intrinsics import CreatedResource


def _create_state_machine(asked: ResourceRequest) -> CreatedResource:
    given = asked.properties
    definition = orjson.dumps(given["Definition"]).decode()
    for name, value in given.get("DefinitionSubstitutions", {}).items():
        definition = definition.replace(f"${{{name}}}", str(value))
    name = given.get("StateMachineName", asked.name)
    made = asked.client("stepfunctions").create_state_machine(
        name=name, definition=definition, roleArn=given["RoleArn"]
    )
    return CreatedResource(made["stateMachineArn"], {"Arn": made["stateMachineArn"], "Name": name})


def _delete_state_machine(services: ClientFactory, piece: StackResource) -> None:
    services("stepfunctions").delete_state_machine(stateMachineArn=piece.physical)


RESOURCE_TYPES["AWS::StepFunctions::StateMachine"] = ResourceType(
    names_of(
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


def _create_schedule(asked: ResourceRequest) -> CreatedResource:
    given = asked.properties
    made = asked.client("scheduler").create_schedule(
        Name=asked.name,
        ScheduleExpression=given["ScheduleExpression"],
        FlexibleTimeWindow=dict(given["FlexibleTimeWindow"]),
        Target=dict(given["Target"]),
        **asked.pick("Description"),
    )
    return CreatedResource(asked.name, {"Arn": made["ScheduleArn"]})


RESOURCE_TYPES["AWS::Scheduler::Schedule"] = ResourceType(
    names_of("Description", "FlexibleTimeWindow", "ScheduleExpression", "Target"),
    _create_schedule,
    lambda services, piece: services("scheduler").delete_schedule(Name=piece.physical),
)
