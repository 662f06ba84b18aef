"""The typed view of a request: named parts, and requests that earlier builds have written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from job_records import make_record

from cloudft.backends.aws_base.api_call import ApiCall, AwsRequest, recorded_request
from cloudft.backends.bedrock import state_machine
from cloudft.errors import DamagedJob
from cloudft.storage.store import JobRecord, Store

WRITTEN_BEFORE: dict[str, Any] = json.loads(
    (Path(__file__).parent / "plans_of_0_1_0.json").read_text()
)
"""The requests of two plans as the build wrote them whose plans were untyped dicts."""


def record_with(store: Store, request: dict[str, Any]) -> JobRecord:
    record = make_record(store, "router-1234abcd", request=request)
    with store.create(record):
        return store.get(record.id)


@pytest.mark.parametrize(
    ("backend", "operation", "uploads"),
    [("bedrock", "create_model_customization_job", 2), ("sagemaker", "create_training_job", 5)],
)
def test_a_request_of_an_earlier_build_is_read_by_its_parts(
    home: Path, backend: str, operation: str, uploads: int
) -> None:
    written = WRITTEN_BEFORE[backend]
    request = recorded_request(record_with(Store(home / "jobs"), written))
    assert request is not None
    parts = request.planned
    assert (parts.create.operation, parts.create.service) == (operation, backend)
    assert parts.create.parameters == written["calls"][-1]["parameters"]
    assert len(parts.uploads) >= uploads
    assert parts.plan_file.parameters["Key"].endswith("/plan.json")
    assert parts.plan_file.parameters["ExpectedBucketOwner"] == "123456789012"
    assert request.to_json()["calls"] == written["calls"], "the same JSON, in the same order"
    assert [msgspec.to_builtins(call) for call in parts.in_order] == written["calls"]


def test_the_execution_of_an_earlier_builds_job_is_found(home: Path) -> None:
    store = Store(home / "jobs")
    record = record_with(store, WRITTEN_BEFORE["bedrock"])
    arn = state_machine.recorded_execution(record.folder)
    assert arn is not None
    assert arn.startswith("arn:aws:states:us-east-1:123456789012:execution:jobs:")


def test_a_job_that_was_discovered_has_no_calls(home: Path) -> None:
    request = {"hyperParameters": {}, "place": {"region": "us-east-1"}}
    assert recorded_request(record_with(Store(home / "jobs"), request)) is None
    with pytest.raises(ValueError, match="no calls"):
        _ = AwsRequest(hyper_parameters={}, place={}).planned


def test_a_damaged_request_is_named_with_its_file(home: Path) -> None:
    request = {"hyperParameters": {}, "place": {}, "calls": [{"service": "s3"}]}
    with pytest.raises(DamagedJob, match=r"record\.json"):
        recorded_request(record_with(Store(home / "jobs"), request))


def test_a_call_is_a_frozen_value() -> None:
    call = ApiCall(service="s3", operation="put_object", parameters={})
    with pytest.raises(AttributeError):
        call.service = "bedrock"  # type: ignore[misc]
