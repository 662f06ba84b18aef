"""What is tried again, what is not, and how AWS's refusals read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from endpoint import AWS_KEYS, REGION, Endpoint, running_endpoint

from cloudft.aws import client as module
from cloudft.aws.client import Aws, AwsLocation
from cloudft.aws.error_translation import translate_aws_errors
from cloudft.errors import (
    CloudftError,
    CloudRefused,
    CloudUnreachable,
    CredentialsExpired,
    PermissionDenied,
    QuotaExceeded,
    ResourceNotFound,
)
from cloudft.jobs import wait
from cloudft.types import JobState, StatusDetails


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint("--clock", "fast") as made:
        yield made


@pytest.fixture
def aws(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Aws:
    for name, value in AWS_KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(module, "DEADLINE_S", 5.0)
    return Aws(AwsLocation(region=REGION, endpoint_url=endpoint.url))


def list_models(aws: Aws) -> None:
    aws.call("models can't be listed", "bedrock", "list_foundation_models")


def count_list_calls(endpoint: Endpoint) -> int:
    return len(endpoint.calls("ListFoundationModels"))


@pytest.mark.parametrize("fault", ["throttle", "unavailable", "drop"])
def test_a_transient_error_is_retried(aws: Aws, endpoint: Endpoint, fault: str) -> None:
    before = count_list_calls(endpoint)
    endpoint.fault({"operation": "ListFoundationModels", "do": fault, "times": 2})
    list_models(aws)
    assert count_list_calls(endpoint) - before == 3


@pytest.mark.parametrize(
    ("fault", "kind"), [("deny", PermissionDenied), ("expire", CredentialsExpired)]
)
def test_a_permanent_error_is_raised_at_once(
    aws: Aws, endpoint: Endpoint, fault: str, kind: type[CloudftError]
) -> None:
    before = count_list_calls(endpoint)
    endpoint.fault({"operation": "ListFoundationModels", "do": fault, "times": 1})
    with pytest.raises(kind) as caught:
        list_models(aws)
    assert caught.value.fix and caught.value.exit_code == 4
    assert count_list_calls(endpoint) - before == 1
    list_models(aws)


def test_a_missing_resource_is_not_found(aws: Aws) -> None:
    with pytest.raises(ResourceNotFound):
        aws.call("it", "bedrock", "get_custom_model", modelIdentifier="none")


def test_retries_end_at_the_deadline(aws: Aws, endpoint: Endpoint) -> None:
    endpoint.fault({"operation": "ListFoundationModels", "do": "throttle", "times": 1000})
    with pytest.raises(CloudUnreachable) as caught:
        list_models(aws)
    assert caught.value.exit_code == 5
    endpoint.fault()


def test_watching_outlasts_expired_credentials_and_a_broken_network(tmp_path: Path) -> None:
    state = JobState("job", "InProgress", StatusDetails(), "2026-01-01T00:00:00+00:00")
    looks = iter(
        [state, CredentialsExpired("x"), CredentialsExpired("x"), CloudUnreachable("y"), state]
    )

    def once() -> JobState:
        found = next(looks)
        if isinstance(found, CloudftError):
            raise found
        return found

    message: list[CloudftError] = []
    patient = wait.tolerating_outages(once, message.append)
    assert [patient() for _ in range(5)] == [state] * 5
    assert [type(error) for error in message] == [CredentialsExpired, CloudUnreachable]
    with pytest.raises(CredentialsExpired):
        wait.tolerating_outages(
            lambda: (_ for _ in ()).throw(CredentialsExpired("x")), message.append
        )()


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("The limit is 2 Instances, with current utilization of 2", QuotaExceeded),
        ("The limit 'ml.g5.xlarge for training job usage' is 0 Instances", CloudRefused),
    ],
)
def test_an_instance_type_with_quota_0_is_not_waited_for(
    message: str, kind: type[CloudftError]
) -> None:
    response = {"Error": {"Code": "ResourceLimitExceeded", "Message": message}}
    with pytest.raises(CloudftError) as caught, translate_aws_errors("the job can't be created"):
        raise ClientError(response, "CreateTrainingJob")  # type: ignore[arg-type]
    assert type(caught.value) is kind
