"""State machines, and what starts them by the clock."""

from __future__ import annotations

import orjson

from cloudft.endpoint.stacks.records import Piece
from cloudft.endpoint.stacks.types import TYPES, Asked, Services, Type, known
from cloudft.infrastructure.evaluate import Made


def _make_machine(asked: Asked) -> Made:
    given = asked.properties
    definition = orjson.dumps(given["Definition"]).decode()
    for name, value in given.get("DefinitionSubstitutions", {}).items():
        definition = definition.replace(f"${{{name}}}", str(value))
    name = given.get("StateMachineName", asked.name)
    made = asked.services("stepfunctions").create_state_machine(
        name=name, definition=definition, roleArn=given["RoleArn"]
    )
    return Made(made["stateMachineArn"], {"Arn": made["stateMachineArn"], "Name": name})


def _remove_machine(services: Services, piece: Piece) -> None:
    services("stepfunctions").delete_state_machine(stateMachineArn=piece.physical)


TYPES["AWS::StepFunctions::StateMachine"] = Type(
    known(
        "Definition",
        "DefinitionSubstitutions",
        "LoggingConfiguration",
        "RoleArn",
        "StateMachineName",
        "StateMachineType",
        "Tags",
    ),
    _make_machine,
    _remove_machine,
)


def _make_schedule(asked: Asked) -> Made:
    given = asked.properties
    made = asked.services("scheduler").create_schedule(
        Name=asked.name,
        ScheduleExpression=given["ScheduleExpression"],
        FlexibleTimeWindow=dict(given["FlexibleTimeWindow"]),
        Target=dict(given["Target"]),
        **asked.take("Description"),
    )
    return Made(asked.name, {"Arn": made["ScheduleArn"]})


TYPES["AWS::Scheduler::Schedule"] = Type(
    known("Description", "FlexibleTimeWindow", "ScheduleExpression", "Target"),
    _make_schedule,
    lambda services, piece: services("scheduler").delete_schedule(Name=piece.physical),
)
