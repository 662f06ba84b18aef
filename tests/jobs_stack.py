"""Deploy the state machines of infra/jobs.yaml at an endpoint that runs them."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from endpoint import ACCOUNT, ROLE, Endpoint, running_endpoint

from cloudft.infra import template as templates

TEMPLATE = Path(__file__).resolve().parents[1] / "infra" / "jobs.yaml"
PREFIX = "team"
TIMEOUT_S = 30.0


def load_template() -> dict[str, Any]:
    """Return the template as plain data."""
    return templates.parse_template(TEMPLATE.read_text())


@dataclass(frozen=True)
class DeployedStack:
    """A deployed stack, and the queue that receives its topic's messages."""

    endpoint: Endpoint
    outputs: Mapping[str, str]
    queue: str

    def start(self, name: str, inputs: Mapping[str, Any], machine: str = "JobMachineArn") -> str:
        """Start an execution and return its ARN."""
        answer = self.endpoint.client("stepfunctions").start_execution(
            stateMachineArn=self.outputs[machine], name=name, input=json.dumps(inputs)
        )
        return str(answer["executionArn"])

    def wait_for_end(self, execution: str) -> dict[str, Any]:
        """Wait until an execution has ended and return its description."""
        client, until = self.endpoint.client("stepfunctions"), time.monotonic() + TIMEOUT_S
        while time.monotonic() < until:
            answer = client.describe_execution(executionArn=execution)
            if answer["status"] != "RUNNING":
                return dict(answer)
            time.sleep(0.05)
        raise AssertionError(f"{execution} is still running")

    def list_states(self, execution: str) -> list[str]:
        """Return the states that an execution has entered, in order."""
        client = self.endpoint.client("stepfunctions")
        events = client.get_execution_history(executionArn=execution, maxResults=1000)["events"]
        return [
            e["stateEnteredEventDetails"]["name"] for e in events if "stateEnteredEventDetails" in e
        ]

    def wait_for_state(self, execution: str, state: str) -> None:
        """Wait until an execution has entered a state."""
        until = time.monotonic() + TIMEOUT_S
        while state not in self.list_states(execution):
            assert time.monotonic() < until, f"{execution} has not entered {state}"
            time.sleep(0.05)

    def receive_messages(self) -> list[str]:
        """Return the messages that were published since the last call."""
        answer = self.endpoint.client("sqs").receive_message(
            QueueUrl=self.queue, MaxNumberOfMessages=10
        )
        messages = answer.get("Messages", ())
        for message in messages:
            self.endpoint.client("sqs").delete_message(
                QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"]
            )
        return [json.loads(message["Body"])["Message"] for message in messages]


@contextlib.contextmanager
def run_endpoint(*arguments: str) -> Iterator[Endpoint]:
    """Run an endpoint with state machines and a fast clock."""
    with running_endpoint("--clock", "fast", *arguments) as endpoint:
        yield endpoint


def deploy_machines(
    endpoint: Endpoint, name: str, **parameters: str | int | float
) -> DeployedStack:
    """Create the stack's state machines, with retry intervals of one second."""
    sns, sqs = endpoint.client("sns"), endpoint.client("sqs")
    topic = sns.create_topic(Name=name)["TopicArn"]
    queue = sqs.create_queue(QueueName=name)["QueueUrl"]
    attributes = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=attributes["Attributes"]["QueueArn"])
    known = {key: value.get("Default") for key, value in load_template()["Parameters"].items()}
    known |= {"JobTopicArn": topic, "QueueSeconds": 1, "FollowSeconds": 1, **parameters}
    known |= {"AWS::AccountId": ACCOUNT}
    for machine in ("JobMachine", "PlanStarter"):
        known[machine] = endpoint.client("stepfunctions").create_state_machine(
            name=f"{name}-{machine}", definition=machine_definition(machine, known), roleArn=ROLE
        )["stateMachineArn"]
    outputs = {
        key: known[value["Value"]["Ref"]]
        for key, value in load_template()["Outputs"].items()
        if value["Value"]["Ref"] in known
    }
    return DeployedStack(endpoint, outputs, queue)


def machine_definition(machine: str, known: Mapping[str, Any]) -> str:
    """Return a state machine's definition with its substitutions applied."""
    properties = load_template()["Resources"][machine]["Properties"]
    text = json.dumps(properties["Definition"])
    for name, value in properties["DefinitionSubstitutions"].items():
        assert f"${{{name}}}" in text, f"{name} is substituted nowhere"
        text = text.replace(f"${{{name}}}", str(known[value["Ref"]]))
    assert "${" not in text
    return re.sub(r'"IntervalSeconds": \d+', '"IntervalSeconds": 1', text)
