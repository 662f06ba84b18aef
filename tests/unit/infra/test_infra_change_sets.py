"""A stack that was removed is made again: no run takes the token of an earlier one."""

from __future__ import annotations

import pytest
from endpoint import AWS_KEYS, REGION, running_endpoint

from cloudft.aws.client import Aws, AwsLocation
from cloudft.aws.stack import Stack
from cloudft.infra import change_sets, destroy
from cloudft.infra.status import stack_to_json

TEMPLATE = "Resources:\n  Topic: {Type: AWS::SNS::Topic}\n"


def test_each_run_has_tokens_of_its_own_and_a_change_set_keeps_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in AWS_KEYS.items():
        monkeypatch.setenv(name, value)
    with running_endpoint("--clock", "fast") as endpoint:
        aws = Aws(AwsLocation(region=REGION, endpoint_url=endpoint.url))
        for _ in range(2):
            proposal = change_sets.create_change_set(aws, "team", TEMPLATE, {}, None)
            change_sets.execute_change_set(aws, proposal)
            change_sets.follow_stack(aws, "team", set(), lambda event: None, 0.05)
            end = destroy.plan_destroy(aws, "team", delete_data=False, keep_data=False)
            destroy.execute_destroy(aws, end, lambda event: None, lambda done: None, 0.05)
        created, executed, deleted = (
            endpoint.calls(f"{verb}")
            for verb in ("CreateChangeSet", "ExecuteChangeSet", "DeleteStack")
        )
    assert len({call["ChangeSetName"] for call in created}) == 1
    tokens = [call["ClientToken"] for call in created]
    tokens += [call["ClientRequestToken"] for call in deleted]
    assert len(tokens) == 4 == len(set(tokens))
    assert [c["ClientRequestToken"] for c in executed] == tokens[:2]


def test_a_stack_keeps_its_json_keys() -> None:
    stack = Stack("team", "arn", "CREATE_COMPLETE", None, {}, {}, {}, True, "2026-11-29")
    value = stack_to_json(stack)
    assert set(value) == {
        *("name", "id", "status", "reason", "outputs", "parameters", "tags"),
        *("protected", "changed"),
    }
    assert value["protected"] is True and value["changed"] == "2026-11-29"
