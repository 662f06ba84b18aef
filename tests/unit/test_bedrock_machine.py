"""Jobs that a state machine creates: the words of its executions, and their names."""

from __future__ import annotations

from cloudft.aws.shapes import service_model
from cloudft.backends.bedrock import machine

MACHINE = "arn:aws:states:us-east-1:123456789012:stateMachine:team-jobs-machine"


def test_every_word_for_an_execution_is_known() -> None:
    assert set(service_model("stepfunctions").shape_for("ExecutionStatus").enum) == set(
        machine.STATUS
    )


def test_an_execution_is_found_by_the_plan_alone() -> None:
    start = {"parameters": {"stateMachineArn": MACHINE, "name": "a" * 32, "input": "{}"}}
    arn = f"arn:aws:states:us-east-1:123456789012:execution:team-jobs-machine:{'a' * 32}"
    assert machine.execution_of({"machine": [{}, start]}) == arn
    assert machine.execution_of({"calls": []}) is None
