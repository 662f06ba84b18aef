"""State machines: what their definitions may have, and how one is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import pytest
from botocore.exceptions import ClientError
from endpoint import ROLE, Endpoint
from processes import wait_until

JSONATA = {
    "QueryLanguage": "JSONata",
    "StartAt": "Only",
    "States": {"Only": {"Type": "Pass", "Output": {"n": "{% 1 + 1 %}"}, "End": True}},
}
JSONPATH = {
    "StartAt": "Only",
    "States": {"Only": {"Type": "Pass", "Parameters": {"n.$": "$.n"}, "End": True}},
}


def create(endpoint: Endpoint, name: str, definition: Mapping[str, Any]) -> str:
    client = endpoint.client("stepfunctions")
    made = client.create_state_machine(name=name, definition=json.dumps(definition), roleArn=ROLE)
    return str(made["stateMachineArn"])


def test_a_refused_definition_changes_nothing_for_later_ones(fast_account: Endpoint) -> None:
    # JSONPath's fields are refused in JSONata (developer guide, "Transforming data with JSONata").
    mixed = {**JSONATA, "States": JSONPATH["States"]}
    for number in range(2):
        with pytest.raises(ClientError) as caught:
            create(fast_account, "mixed", mixed)
        assert caught.value.response["Error"]["Code"] == "InvalidDefinition"
        create(fast_account, f"path-{number}", JSONPATH)
        create(fast_account, f"ata-{number}", JSONATA)


@pytest.mark.parametrize(
    "resource",
    [
        "bedrock:noSuchOperation",
        "bedrock:invokeModel.sync",
        "bedrock:invokeAgent",
        "aws-sdk:nosuchservice:getIt",
        "aws-sdk:bedrockruntime:noSuchOperation",
        # Unsupported operations of the developer guide's list of AWS SDK integrations.
        "aws-sdk:bedrockruntime:converseStream",
    ],
)
def test_a_task_that_calls_what_there_is_not_is_named(
    fast_account: Endpoint, resource: str
) -> None:
    task = {"Type": "Task", "Resource": f"arn:aws:states:::{resource}", "End": True}
    with pytest.raises(ClientError) as caught:
        create(fast_account, "unknown", {"StartAt": "Only", "States": {"Only": task}})
    message = caught.value.response["Error"]["Message"]
    assert message.startswith("Invalid State Machine Definition: 'SCHEMA_VALIDATION_FAILED: The")
    assert f"arn:aws:states:::{resource} is not recognized" in message


def test_executions_without_a_name_have_names_of_their_own(fast_account: Endpoint) -> None:
    client, machine = fast_account.client("stepfunctions"), create(fast_account, "unnamed", JSONATA)
    arns = [client.start_execution(stateMachineArn=machine)["executionArn"] for _ in range(2)]
    names = {client.describe_execution(executionArn=arn)["name"] for arn in arns}
    assert len(names) == 2 and {arn.rpartition(":")[2] for arn in arns} == names


def test_a_definition_that_lacks_a_field_is_refused_by_its_name(fast_account: Endpoint) -> None:
    with pytest.raises(ClientError) as caught:
        create(fast_account, "bare", {"StartAt": "Only"})
    message = caught.value.response["Error"]["Message"]
    assert "No 'States' definition" in message and "class" not in message


def test_a_definition_is_validated_without_a_state_machine(fast_account: Endpoint) -> None:
    client = fast_account.client("stepfunctions")
    valid = client.validate_state_machine_definition(definition=json.dumps(JSONPATH))
    assert (valid["result"], valid["diagnostics"]) == ("OK", [])
    bare = client.validate_state_machine_definition(definition='{"StartAt": "Only"}')
    [diagnostic] = bare["diagnostics"]
    assert (bare["result"], diagnostic["severity"]) == ("FAIL", "ERROR")
    assert "States" in diagnostic["message"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("$.results[0].text", "Lyon"),
        ("$.results[1]", {"text": "Oslo"}),
        ("$['results'][1]['text']", "Oslo"),
        ("$.results", [{"text": "Lyon"}, {"text": "Oslo"}]),
        ("$.nested[0][0].text", "Rome"),
        ("$['a*b'][0].text", "Lima"),
        # These may match many nodes: what they match is a list, of one node too.
        ("$.results[*].text", ["Lyon", "Oslo"]),
        ("$.results[0:1].text", ["Lyon"]),
        ("$.results[?(@.text == 'Oslo')].text", ["Oslo"]),
    ],
)
def test_a_path_to_one_node_yields_its_value(
    fast_account: Endpoint, path: str, value: object
) -> None:
    client = fast_account.client("stepfunctions")
    only = {"Type": "Pass", "Parameters": {"value.$": path}, "End": True}
    name = f"path-{hashlib.sha256(path.encode()).hexdigest()[:8]}"
    machine = create(fast_account, name, {"StartAt": "Only", "States": {"Only": only}})
    given = {
        "results": [{"text": "Lyon"}, {"text": "Oslo"}],
        "nested": [[{"text": "Rome"}]],
        "a*b": [{"text": "Lima"}],
    }
    start = client.start_execution(stateMachineArn=machine, input=json.dumps(given))

    def end() -> Any:
        found = client.describe_execution(executionArn=start["executionArn"])
        return None if found["status"] == "RUNNING" else found

    found = wait_until(end, "the execution has ended")
    assert found["status"] == "SUCCEEDED", found
    assert json.loads(found["output"]) == {"value": value}
