"""The stack of infra/jobs.yaml, made by CloudFormation at an endpoint that runs its machines."""

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
    """The template as plain data."""
    return templates.parse_template(TEMPLATE.read_text())


@dataclass(frozen=True)
class DeployedStack:
    """A deployed stack, and the queue that its topic's messages go to."""

    endpoint: Endpoint
    outputs: Mapping[str, str]
    queue: str

    def start(self, name: str, given: Mapping[str, Any], machine: str = "JobMachineArn") -> str:
        """Start an execution; returns its ARN."""
        answer = self.endpoint.client("stepfunctions").start_execution(
            stateMachineArn=self.outputs[machine], name=name, input=json.dumps(given)
        )
        return str(answer["executionArn"])

    def wait_for_end(self, execution: str) -> dict[str, Any]:
        """How an execution has ended."""
        client, until = self.endpoint.client("stepfunctions"), time.monotonic() + TIMEOUT_S
        while time.monotonic() < until:
            answer = client.describe_execution(executionArn=execution)
            if answer["status"] != "RUNNING":
                return dict(answer)
            time.sleep(0.05)
        raise AssertionError(f"{execution} is still running")

    def list_states(self, execution: str) -> list[str]:
        """The states that an execution went through, in order."""
        client = self.endpoint.client("stepfunctions")
        events = client.get_execution_history(executionArn=execution, maxResults=1000)["events"]
        return [
            e["stateEnteredEventDetails"]["name"] for e in events if "stateEnteredEventDetails" in e
        ]

    def wait_for_state(self, execution: str, state: str) -> None:
        """Return when an execution has come to a state."""
        until = time.monotonic() + TIMEOUT_S
        while state not in self.list_states(execution):
            assert time.monotonic() < until, f"{execution} has not come to {state}"
            time.sleep(0.05)

    def receive_messages(self) -> list[str]:
        """What was published since the last time."""
        answer = self.endpoint.client("sqs").receive_message(
            QueueUrl=self.queue, MaxNumberOfMessages=10
        )
        found = answer.get("Messages", ())
        for message in found:
            self.endpoint.client("sqs").delete_message(
                QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"]
            )
        return [json.loads(message["Body"])["Message"] for message in found]


@contextlib.contextmanager
def run_endpoint(*arguments: str) -> Iterator[Endpoint]:
    """An endpoint that runs state machines, by a fast clock."""
    with running_endpoint("--clock", "fast", *arguments) as endpoint:
        yield endpoint


def deploy_machines(
    endpoint: Endpoint, name: str, **parameters: str | int | float
) -> DeployedStack:
    """Make the machines of the stack. Their retries wait a second at most."""
    sns, sqs = endpoint.client("sns"), endpoint.client("sqs")
    topic = sns.create_topic(Name=name)["TopicArn"]
    queue = sqs.create_queue(QueueName=name)["QueueUrl"]
    told = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=told["Attributes"]["QueueArn"])
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
    """A machine's definition, with the values of its substitutions."""
    properties = load_template()["Resources"][machine]["Properties"]
    text = json.dumps(properties["Definition"])
    for name, value in properties["DefinitionSubstitutions"].items():
        assert f"${{{name}}}" in text, f"{name} is substituted nowhere"
        text = text.replace(f"${{{name}}}", str(known[value["Ref"]]))
    assert "${" not in text
    return re.sub(r'"IntervalSeconds": \d+', '"IntervalSeconds": 1', text)
