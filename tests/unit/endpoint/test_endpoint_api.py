"""The endpoint as an AWS SDK sees it."""

from __future__ import annotations

import io
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from endpoint import ACCOUNT, BUCKET, ROLE, TOKEN, Endpoint, running_endpoint
from processes import wait_until

from cloudft.endpoint.app import App, AppOptions
from cloudft.endpoint.fault_injection import FaultInjector
from cloudft.endpoint.state import State

TITAN = "amazon.titan-text-express-v1:0:8k"
URI = f"s3://{BUCKET}/train.jsonl"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint("--clock", "fast", "--jobs", "2") as endpoint:
        body = b'{"prompt": "a", "completion": "b"}\n' * 3
        endpoint.client("s3").put_object(Bucket=BUCKET, Key="train.jsonl", Body=body)
        yield endpoint


def job_request(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "jobName": name,
        "customModelName": name,
        "roleArn": ROLE,
        "baseModelIdentifier": TITAN,
        "trainingDataConfig": {"s3Uri": URI},
        "outputDataConfig": {"s3Uri": f"s3://{BUCKET}/out"},
        "hyperParameters": {"epochCount": "1"},
        **changes,
    }


def wait_for_end(endpoint: Endpoint, arn: str) -> dict[str, Any]:
    bedrock = endpoint.client("bedrock")

    def poll() -> Any:
        job = bedrock.get_model_customization_job(jobIdentifier=arn)
        return job if job["status"] not in ("InProgress", "Stopping") else None

    return dict(wait_until(poll, "the job has ended"))


def create_completed_job(endpoint: Endpoint, name: str) -> dict[str, Any]:
    bedrock = endpoint.client("bedrock")
    return wait_for_end(
        endpoint, bedrock.create_model_customization_job(**job_request(name))["jobArn"]
    )


def error_code(caught: pytest.ExceptionInfo[ClientError]) -> str:
    return str(caught.value.response["Error"]["Code"])


def test_responses_say_that_this_is_not_aws(endpoint: Endpoint) -> None:
    with urllib.request.urlopen(f"{endpoint.url}/_cloudft/account?token={TOKEN}") as answer:
        assert "not AWS" in answer.headers["Server"]
    assert endpoint.client("sts").get_caller_identity()["Account"] == ACCOUNT
    assert create_completed_job(endpoint, "account")["jobArn"].split(":")[4] == ACCOUNT


def test_a_job_is_found_by_name_and_arn_with_the_members_of_the_api(endpoint: Endpoint) -> None:
    bedrock = endpoint.client("bedrock")
    job = create_completed_job(endpoint, "whole")
    assert bedrock.get_model_customization_job(jobIdentifier="whole")["jobArn"] == job["jobArn"]
    assert job["status"] == "Completed" and job["trainingMetrics"]["trainingLoss"] > 0
    assert {phase["status"] for phase in job["statusDetails"].values()} == {"Completed"}
    assert job["validationDataConfig"] == {"validators": []}
    model = bedrock.get_custom_model(modelIdentifier=job["outputModelArn"])
    assert (model["modelName"], model["jobArn"]) == ("whole", job["jobArn"])
    key = f"out/model-customization-job-{job['jobArn'][-12:]}/training_artifacts/"
    assert any(name.startswith(key) for name in endpoint.object_keys())


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"jobName": "a_b"}, "jobName"),
        ({"jobName": "-" * 40}, "jobName"),
        ({"jobName": "a" * 64}, "jobName"),
        ({"customModelName": "a--b"}, "customModelName"),
        ({"customizationType": "FOO"}, "customizationType"),
        ({"roleArn": "role"}, "roleArn"),
        ({"outputDataConfig": {"s3Uri": f"s3://{BUCKET}/a=b"}}, "outputDataConfig"),
        ({"clientRequestToken": "a_b"}, "clientRequestToken"),
        ({"jobTags": [{"key": "k" * 129, "value": ""}]}, "jobTags"),
        ({"baseModelIdentifier": "amazon.no-such-model"}, "foundation model"),
        ({"customizationType": "DISTILLATION"}, "DISTILLATION"),
    ],
)
def test_requests_that_the_service_refuses_are_refused(
    endpoint: Endpoint, changes: dict[str, Any], part: str
) -> None:
    with pytest.raises(ClientError) as caught:
        endpoint.client("bedrock").create_model_customization_job(**job_request("bad", **changes))
    assert error_code(caught) == "ValidationException" and part in str(caught.value)


def test_tokens_names_and_quotas(endpoint: Endpoint) -> None:
    bedrock = endpoint.client("bedrock")
    token = {"clientRequestToken": "token-1"}
    first = bedrock.create_model_customization_job(**job_request("once", **token))["jobArn"]
    assert bedrock.create_model_customization_job(**job_request("once", **token))["jobArn"] == first
    with pytest.raises(ClientError) as caught:
        bedrock.create_model_customization_job(**job_request("twice", **token))
    assert error_code(caught) == "ValidationException"
    with pytest.raises(ClientError) as caught:
        bedrock.create_model_customization_job(**job_request("once"))
    assert error_code(caught) == "ValidationException"
    assert "The provided job name is currently in use." in str(caught.value)
    wait_for_end(endpoint, first)
    with pytest.raises(ClientError) as caught:
        bedrock.stop_model_customization_job(jobIdentifier=first)
    assert error_code(caught) == "ConflictException"


def test_lists_are_paginated_filtered_and_sorted(endpoint: Endpoint) -> None:
    for name in ("page-1", "page-2", "page-3"):
        create_completed_job(endpoint, name)
    bedrock = endpoint.client("bedrock")
    pages = bedrock.get_paginator("list_model_customization_jobs").paginate(
        nameContains="page-", PaginationConfig={"PageSize": 2}
    )
    names = [[s["jobName"] for s in page["modelCustomizationJobSummaries"]] for page in pages]
    assert names == [["page-3", "page-2"], ["page-1"]]
    failed = bedrock.list_model_customization_jobs(nameContains="page-", statusEquals="Failed")
    assert failed["modelCustomizationJobSummaries"] == []


def test_a_job_that_cannot_read_its_data_has_the_services_message(endpoint: Endpoint) -> None:
    bedrock = endpoint.client("bedrock")
    nowhere = {"trainingDataConfig": {"s3Uri": f"s3://{BUCKET}/nowhere.jsonl"}}
    arn = bedrock.create_model_customization_job(**job_request("unread", **nowhere))["jobArn"]
    job = wait_for_end(endpoint, arn)
    assert job["status"] == "Failed"
    assert "Could not validate GetObject permissions" in job["failureMessage"]
    with pytest.raises(ClientError):
        bedrock.get_custom_model(modelIdentifier="unread")


def test_a_model_in_use_is_not_deleted(endpoint: Endpoint) -> None:
    bedrock = endpoint.client("bedrock")
    model = create_completed_job(endpoint, "used")["outputModelArn"]
    created = bedrock.create_custom_model_deployment(modelDeploymentName="used", modelArn=model)
    arn = created["customModelDeploymentArn"]
    with pytest.raises(ClientError) as caught:
        bedrock.delete_custom_model(modelIdentifier=model)
    assert error_code(caught) == "ConflictException"
    bedrock.delete_custom_model_deployment(customModelDeploymentIdentifier=arn)
    bedrock.delete_custom_model(modelIdentifier=model)
    throughput = create_completed_job(endpoint, "committed")["outputModelArn"]
    units = {"modelUnits": 1, "commitmentDuration": "OneMonth", "provisionedModelName": "month"}
    bedrock.create_provisioned_model_throughput(modelId=throughput, **units)
    with pytest.raises(ClientError) as caught:
        bedrock.delete_provisioned_model_throughput(provisionedModelId="month")
    assert error_code(caught) == "ConflictException"


def test_an_operation_that_is_not_offered_is_refused_and_not_retried(endpoint: Endpoint) -> None:
    with pytest.raises(ClientError) as caught:
        endpoint.client("bedrock").list_guardrails()
    assert error_code(caught) == "ValidationException" and "not offered" in str(caught.value)
    assert len(endpoint.calls("ListGuardrails")) == 1


@pytest.mark.parametrize("path", ["/_cloudft/calls", "/_cloudft/faults", "/"])
def test_unsigned_administration_is_for_this_machine_alone(tmp_path: Path, path: str) -> None:
    app = App(
        State("us-east-1"),
        (),
        lambda environ, start_response: [b"moto"],
        FaultInjector(),
        AppOptions(tmp_path, {"k": "s"}),
    )
    statuses: list[str] = []

    def start_response(status: str, headers: Any) -> None:
        statuses.append(status)

    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "REMOTE_ADDR": "10.0.0.9"}
    body = b"".join(app(environ | {"wsgi.input": io.BytesIO()}, start_response))
    assert statuses[0].startswith("403") and b"moto" not in body


def many_tags(count: int, first: int = 0) -> list[dict[str, str]]:
    return [{"key": f"key-{number}", "value": "x"} for number in range(first, first + count)]


@pytest.mark.parametrize("member", ["jobTags", "customModelTags"])
def test_a_resource_has_fifty_tags_at_most(endpoint: Endpoint, member: str) -> None:
    """Bedrock API reference, "TagResource": TooManyTagsException; old and new tags count."""
    bedrock, name = endpoint.client("bedrock"), f"tags-{member.lower()}"
    request = job_request(name, **{member: many_tags(51)})
    with pytest.raises(bedrock.exceptions.TooManyTagsException, match="50 tags per resource"):
        bedrock.create_model_customization_job(**request)
    request[member] = many_tags(50)
    arn = bedrock.create_model_customization_job(**request)["jobArn"]
    job = wait_for_end(endpoint, arn)
    resource = {"resourceARN": arn if member == "jobTags" else job["outputModelArn"]}
    bedrock.tag_resource(**resource, tags=many_tags(1))  # replaced, not added
    with pytest.raises(bedrock.exceptions.TooManyTagsException):
        bedrock.tag_resource(**resource, tags=many_tags(2, first=49))
    assert len(bedrock.list_tags_for_resource(**resource)["tags"]) == 50


def test_an_arn_of_another_region_names_nothing(endpoint: Endpoint) -> None:
    bedrock = endpoint.client("bedrock")
    here = bedrock.get_foundation_model(modelIdentifier=TITAN)["modelDetails"]["modelArn"]
    assert bedrock.get_foundation_model(modelIdentifier=here)["modelDetails"]["modelArn"] == here
    there = here.replace("us-east-1", "eu-west-1")
    with pytest.raises(ClientError) as caught:
        bedrock.get_foundation_model(modelIdentifier=there)
    assert error_code(caught) == "ResourceNotFoundException"
    with pytest.raises(ClientError) as caught:
        request = job_request("elsewhere", baseModelIdentifier=there)
        bedrock.create_model_customization_job(**request)
    assert error_code(caught) == "ValidationException"
