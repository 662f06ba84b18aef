"""Service Quotas on the endpoint: values, increases, and what they allow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from endpoint import Endpoint, running_endpoint

from cloudft.catalogue.quotas import load_quotas, require_quota
from cloudft.endpoint.bedrock.deployments import Deployments
from cloudft.endpoint.bedrock.foundation_models import FoundationModels
from cloudft.endpoint.bedrock.model_import_jobs import ModelImportJobs
from cloudft.endpoint.protocols.messages import ServiceError
from cloudft.endpoint.service_quotas import ServiceQuotas, require_quota_for
from cloudft.endpoint.state import Model, State, Task

REGION = "us-east-1"
DEPLOYMENTS = require_quota("deployments").code or ""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint("--clock", "fast") as made:
        yield made


def test_a_quota_is_raised_by_the_aws_sdk(endpoint: Endpoint) -> None:
    quotas = endpoint.client("service-quotas")
    names = {"ServiceCode": "bedrock", "QuotaCode": "L-82EE9228"}
    before = quotas.get_service_quota(**names)["Quota"]
    assert (before["Value"], before["Adjustable"]) == (20_000, True)
    assert "Nova 2 Lite" in before["QuotaName"]
    request = quotas.request_service_quota_increase(**names, DesiredValue=50_000)
    assert request["RequestedQuota"]["Status"] == "APPROVED"
    assert quotas.get_service_quota(**names)["Quota"]["Value"] == 50_000
    assert quotas.get_aws_default_service_quota(**names)["Quota"]["Value"] == 20_000
    pages = quotas.get_paginator("list_service_quotas").paginate(
        ServiceCode="bedrock", PaginationConfig={"PageSize": 7}
    )
    listed = {quota["QuotaCode"]: quota["Value"] for page in pages for quota in page["Quotas"]}
    assert listed["L-82EE9228"] == 50_000
    assert len(listed) == sum(quota.code is not None for quota in load_quotas())


@pytest.mark.parametrize(
    ("names", "desired", "code"),
    [
        ({"ServiceCode": "bedrock", "QuotaCode": "L-00000000"}, None, "NoSuchResourceException"),
        ({"ServiceCode": "ec2", "QuotaCode": "L-0263D0A3"}, None, "NoSuchResourceException"),
        ({"ServiceCode": "bedrock", "QuotaCode": "L-0406044C"}, 20, "IllegalArgumentException"),
        ({"ServiceCode": "bedrock", "QuotaCode": DEPLOYMENTS}, 10, "IllegalArgumentException"),
    ],
)
def test_what_is_refused(
    endpoint: Endpoint, names: dict[str, str], desired: int | None, code: str
) -> None:
    quotas = endpoint.client("service-quotas")
    with pytest.raises(ClientError) as caught:
        if desired is None:
            quotas.get_service_quota(**names)
        else:
            quotas.request_service_quota_increase(**names, DesiredValue=desired)
    assert caught.value.response["Error"]["Code"] == code


def test_deployments_are_limited_until_the_quota_is_raised() -> None:
    state = State(REGION)
    models = FoundationModels(REGION, as_on_aws=False)
    model = Model("arn:model", "m", models.arn_of("amazon.nova-lite-v1:0:300k"), "job")
    state.models[model.arn] = model
    deployments = Deployments(state, models)
    for number in range(10):
        deployments.create_custom_model_deployment(deployment(f"d{number}"))
    with pytest.raises(ServiceError, match="10 custom model deployments") as caught:
        deployments.create_custom_model_deployment(deployment("one-more"))
    assert caught.value.code == "ServiceQuotaExceededException"
    with pytest.raises(ServiceError) as caught:  # who retries gets the resource, not the quota
        deployments.create_custom_model_deployment(deployment("d3"))
    assert caught.value.code == "ConflictException"
    request: Any = {"ServiceCode": "bedrock", "QuotaCode": DEPLOYMENTS, "DesiredValue": 11}
    ServiceQuotas(state).request_service_quota_increase(request)
    deployments.create_custom_model_deployment(deployment("one-more"))
    assert len(state.deployments) == 11


def deployment(name: str) -> Any:
    """Return the request that deploys the model `m`."""
    return {"modelDeploymentName": name, "modelArn": "m"}


def test_two_deployments_are_created_at_the_same_time() -> None:
    state = State(REGION)
    models = FoundationModels(REGION, as_on_aws=False)
    state.models["m"] = Model("m", "m", models.arn_of("amazon.nova-lite-v1:0:300k"), "job")
    deployments = Deployments(state, models, seconds=60)
    deployments.create_custom_model_deployment(deployment("a"))
    deployments.create_custom_model_deployment(deployment("b"))
    with pytest.raises(ServiceError, match="in progress; the quota is 2"):
        deployments.create_custom_model_deployment(deployment("c"))


def test_one_import_runs_and_three_models_are_kept(tmp_path: Path) -> None:
    state = State(REGION)
    none: Any = None
    imports = ModelImportJobs(state, none, tmp_path)
    request: Any = {
        "jobName": "again",
        "importedModelName": "again",
        "roleArn": "role",
        "modelDataSource": {"s3DataSource": {"s3Uri": "s3://bucket/model"}},
    }
    state.imports["running"] = Task("running", "job", {"importedModelName": "model"})
    with pytest.raises(ServiceError, match="1 model import jobs in progress") as caught:
        imports.create_model_import_job(request)
    assert caught.value.code == "ServiceQuotaExceededException"
    state.imports["running"].finish("Completed")
    for name in "abc":
        state.imported[name] = Model(name, name, "")
    with pytest.raises(ServiceError, match="3 imported models"):
        imports.create_model_import_job(request)
    assert list(state.imports) == ["running"]


def test_raised_quotas_outlive_the_endpoint(tmp_path: Path) -> None:
    state = State(REGION, tmp_path)
    names: Any = {"ServiceCode": "bedrock", "QuotaCode": DEPLOYMENTS, "DesiredValue": 12}
    ServiceQuotas(state).request_service_quota_increase(names)
    again = State(REGION, tmp_path)
    assert again.quotas == {DEPLOYMENTS: 12}
    require_quota_for(again, "deployments", 11)
    with pytest.raises(ServiceError):
        require_quota_for(again, "deployments", 12)
