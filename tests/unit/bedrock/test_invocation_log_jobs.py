"""Jobs whose training data is invocation logs: the job file, the request, the permissions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cloudft.aws.request_validation import validate_request
from cloudft.backends.base import with_placeholder_data
from cloudft.backends.bedrock import invocation_logs, preflight, request, required_permissions
from cloudft.errors import SpecError
from cloudft.spec.load import LoadedJob, load_job

ROLE = "arn:aws:iam::123456789012:role/bedrock"
BUCKET = {"bucketName": "log-bucket"}
LOGS = {"s3_uri": "s3://log-bucket/logs/AWSLogs/"}


def loaded(folder: Path, kind: str = "DISTILLATION", logs: Any = None, **more: Any) -> LoadedJob:
    spec = {
        "name": "from-logs",
        "base_model": "nova-micro",
        "customization_type": kind,
        "data": {"invocation_logs": LOGS if logs is None else logs, **more},
        "distillation": {"teacher": "amazon.nova-pro-v1:0"},
        "bedrock": {"region": "us-east-1", "role_arn": ROLE, "s3_uri": "s3://some-bucket/team"},
    }
    path = folder / "cloudft.yaml"
    path.write_text(yaml.safe_dump(spec))
    return load_job(path)


@pytest.mark.parametrize(
    ("filters", "sent"),
    [
        ({"equals": {"a": "1"}}, {"equals": {"a": "1"}}),
        ({"not_equals": {"a": ""}}, {"notEquals": {"a": ""}}),
        (
            {"and_all": [{"equals": {"a": "1"}}, {"not_equals": {"b": "x y"}}]},
            {"andAll": [{"equals": {"a": "1"}}, {"notEquals": {"b": "x y"}}]},
        ),
        ({"or_all": [{"equals": {"a": "1"}}]}, {"orAll": [{"equals": {"a": "1"}}]}),
    ],
)
def test_the_request_names_the_logs_and_no_file(tmp_path: Path, filters: Any, sent: Any) -> None:
    logs = {**LOGS, "use_prompt_response": True, "filters": filters}
    staged = with_placeholder_data(loaded(tmp_path, logs=logs))
    created = request.create_request(staged)
    assert created["trainingDataConfig"] == {
        "invocationLogsConfig": {
            "usePromptResponse": True,
            "invocationLogSource": {"s3Uri": "s3://log-bucket/logs/AWSLogs/"},
            "requestMetadataFilters": sent,
        }
    }
    assert request.staged_objects(staged) == []
    assert "validationDataConfig" not in created
    assert not validate_request("bedrock", "CreateModelCustomizationJob", dict(created))


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({}, "a filter has one condition, this one none"),
        ({"equals": {"a": "1"}, "or_all": [{"equals": {"b": "1"}}]}, "equals and orAll"),
        ({"equals": {"a": "1", "b": "2"}}, "2 pairs in one filter"),
        ({"equals": {"a": "1,2"}}, "the value '1,2' of the metadata can't be in a filter"),
        ({"equals": {"a#": "1"}}, "the key 'a#' of the metadata can't be in a filter"),
        ({"equals": {"": "1"}}, "the key '' of the metadata can't be in a filter"),
        ({"equals": {"a": "x" * 257}}, "can't be in a filter"),
        ({"and_all": [{}]}, "an empty filter"),
        ({"and_all": [{"equals": {"a": str(n)}} for n in range(17)]}, "at most 16"),
        ({"and_all": [{"and_all": []}]}, "and_all"),
    ],
)
def test_a_filter_is_within_the_limits_of_the_api(
    tmp_path: Path, filters: Any, message: str
) -> None:
    with pytest.raises(SpecError) as caught:
        loaded(tmp_path, logs={**LOGS, "filters": filters})
    assert any(message in finding.message for finding in caught.value.findings)


@pytest.mark.parametrize(
    "more",
    [{"train": "t.jsonl"}, {"validation": 0.1}, {"validation": "v.jsonl"}, {"group_by": "user"}],
)
def test_logs_are_the_only_training_data(tmp_path: Path, more: Any) -> None:
    with pytest.raises(SpecError) as caught:
        loaded(tmp_path, **more)
    assert f"data.{next(iter(more))} and data.invocation_logs can't be in one job" in str(
        caught.value.findings[0].message
    )


def test_a_job_without_any_data_misses_train(tmp_path: Path) -> None:
    path = tmp_path / "cloudft.yaml"
    path.write_text("name: n\nbase_model: nova-micro\ndata: {validation: 0.1}\n")
    with pytest.raises(SpecError) as caught:
        load_job(path)
    [finding] = caught.value.findings
    assert (finding.code, finding.field) == ("MissingKey", "data.train")


def test_the_role_reads_the_logs_and_no_staged_data(tmp_path: Path) -> None:
    needed = list(required_permissions.role_permissions(loaded(tmp_path), {}))
    read = [one.resource for one in needed if one.action == "s3:GetObject"]
    assert read == [
        "arn:aws:s3:::log-bucket/logs/AWSLogs/*",
        "arn:aws:s3:::some-bucket/team/jobs/*",
    ]


def test_fine_tuning_does_not_take_logs(tmp_path: Path) -> None:
    found = preflight.check_offline(loaded(tmp_path, "FINE_TUNING"))
    assert "LogsNotSupported" in {finding.code for finding in found}


class Account:
    """The part of Aws that the check of the configuration calls."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def call(self, *_: str) -> Any:
        return {"loggingConfig": self.config}


@pytest.mark.parametrize(
    ("config", "code"),
    [
        (None, "LoggingOff"),
        ({"cloudWatchConfig": {}}, "LoggingOff"),
        (
            {"s3Config": {"bucketName": "log-bucket"}, "textDataDeliveryEnabled": False},
            "LoggingOff",
        ),
        ({"s3Config": {"bucketName": "other"}, "textDataDeliveryEnabled": True}, "OtherLogs"),
        ({"s3Config": {"bucketName": "log-bucket", "keyPrefix": "more"}}, "OtherLogs"),
        ({"s3Config": {"bucketName": "log-bucket", "keyPrefix": "logs/"}}, None),
        ({"s3Config": BUCKET}, None),
        ({"s3Config": {"bucketName": "log-buck"}}, "OtherLogs"),
        ({"s3Config": {"bucketName": "log-bucket", "keyPrefix": "logs/AWSLogs/x"}}, None),
    ],
)
def test_logging_that_does_not_reach_the_logs_is_a_warning(
    tmp_path: Path, config: Any, code: str | None
) -> None:
    from cloudft.backends.findings import FindingFactory

    job = loaded(tmp_path)
    account: Any = Account(config)
    found = list(invocation_logs.check_logging(job, account, FindingFactory(job)))
    assert [(one.severity, one.code) for one in found] == ([("warning", code)] if code else [])


@pytest.mark.parametrize(
    ("filters", "field"),
    [
        ({"like": {"a": "1"}}, "data.invocation_logs.filters"),
        ({"and_all": [{"like": {"a": "1"}}]}, "data.invocation_logs.filters.and_all"),
    ],
)
def test_an_unknown_condition_of_a_filter_is_named_with_the_known_ones(
    tmp_path: Path, filters: Any, field: str
) -> None:
    with pytest.raises(SpecError) as caught:
        loaded(tmp_path, logs={**LOGS, "filters": filters})
    [finding] = [one for one in caught.value.findings if one.code == "UnknownKey"]
    assert str(finding.field).startswith(field)
    assert "(it has equals, not_equals" in finding.message, finding.message
