"""The watch's own code, as it stands in the template: each import that ends is reported once."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from base_stack import BASE, PSEUDO, resolve_resources
from moto.events.models import EventPattern

NOON = datetime(2026, 11, 29, 12, tzinfo=timezone.utc)


class Account:
    """Bedrock, CloudWatch and EventBridge as the function calls them."""

    def __init__(self, jobs: list[dict[str, Any]], refused: int = 0) -> None:
        self.jobs, self.refused = jobs, refused
        self.sent: list[dict[str, Any]] = []
        self.counts: list[float] = []

    def client(self, name: str) -> Account:
        return self

    def get_paginator(self, name: str) -> Account:
        self.listed = name
        return self

    def paginate(self, **given: Any) -> list[dict[str, Any]]:
        return [{"modelImportJobSummaries": self.jobs, "provisionedModelSummaries": []}]

    def put_metric_data(self, Namespace: str, MetricData: list[dict[str, Any]]) -> None:
        self.counts.append(MetricData[0]["Value"])

    def put_events(self, Entries: list[dict[str, Any]]) -> dict[str, Any]:
        self.sent += Entries
        return {"FailedEntryCount": self.refused, "Entries": Entries}


def job(name: str, status: str, ended: datetime) -> dict[str, Any]:
    """Return a summary as ListModelImportJobs has it; one that runs has no end."""
    end = {} if status == "InProgress" else {"endTime": ended}
    arn = f"arn:aws:bedrock:us-east-1:000000000000:model-import-job/{name}"
    return {"jobName": name, "jobArn": arn, "status": status, "lastModifiedTime": ended, **end}


def watch(account: Account, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in (("STACK", "team"), ("STACK_ID", PSEUDO["AWS::StackId"]), ("HOURS", "24")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("boto3.client", account.client)
    module: dict[str, Any] = {}
    exec(compile(BASE["Resources"]["Watch"]["Properties"]["Code"]["ZipFile"], "x", "exec"), module)
    return module["handler"]


def test_an_import_that_ends_is_reported_once_and_the_rule_hears_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quarter = timedelta(minutes=15)
    account = Account(
        [
            job("early", "Completed", NOON),
            job("late", "Failed", NOON + quarter - timedelta(microseconds=1)),
            job("next", "Completed", NOON + quarter),
            job("runs", "InProgress", NOON),
        ]
    )
    handler = watch(account, monkeypatch)
    ended = [
        handler({"time": (NOON + n * quarter).strftime("%Y-%m-%dT%H:%M:%SZ")}, None)["ended"]
        for n in range(4)
    ]
    assert ended == [[], ["early", "late"], ["next"], []]
    rule = resolve_resources({})["ImportEnds"]["Properties"]["EventPattern"]
    pattern = EventPattern.load(json.dumps(rule))
    for entry in account.sent:
        event = {"source": entry["Source"], "detail-type": entry["DetailType"]}
        event |= {"resources": entry["Resources"], "detail": json.loads(entry["Detail"])}
        assert pattern.matches_event(event)
        assert not pattern.matches_event(event | {"resources": ["another stack"]})
    details = [json.loads(entry["Detail"]) for entry in account.sent]
    assert [one["status"] for one in details] == ["Completed", "Failed", "Completed"]


def test_throughputs_are_counted_even_where_no_event_can_be_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    account = Account([job("early", "Completed", NOON)], refused=1)
    with pytest.raises(RuntimeError, match="early"):
        watch(account, monkeypatch)({"time": "2026-11-29T12:15:00Z"}, None)
    assert account.counts == [0]
