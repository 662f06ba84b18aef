"""Build the call that makes a custom model out of another model. Pure: one source, one request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cloudft.aws.tags import to_tag_list, with_cloudft_tags
from cloudft.backends.aws_base import requests
from cloudft.backends.aws_base.api_call import ApiCall
from cloudft.backends.base import StagedJob
from cloudft.backends.bedrock import request
from cloudft.types import job_id

COPY_OPERATION, CREATE_OPERATION = "create_model_copy_job", "create_custom_model"
MODEL_PACKAGE_PART = ":model-package/"
"""Part of the ARN of a model package of SageMaker."""


@dataclass(frozen=True)
class DerivedJob(StagedJob):
    """A model that is made out of `source`: the ARN of a model, or the location of its artifacts.

    `folder` is not used: nothing is uploaded.
    """

    source: str = ""


BuildParameters = Callable[[DerivedJob, str, str], dict[str, Any]]
"""Returns a request by the job, the model's name and the client token."""


def copy_parameters(derived: DerivedJob, name: str, token: str) -> dict[str, Any]:
    """Return the parameters of CreateModelCopyJob."""
    key = derived.job.spec.bedrock.kms_key_id
    return {
        "sourceModelArn": derived.source,
        "targetModelName": request.custom_model_name(name),
        "targetModelTags": to_tag_list(with_cloudft_tags(derived.job.spec.tags, name, token)),
        "clientRequestToken": token,
        **({"modelKmsKeyId": key} if key else {}),
    }


def create_parameters(derived: DerivedJob, name: str, token: str) -> dict[str, Any]:
    """Return the parameters of CreateCustomModel. A model package needs no role, S3 does."""
    spec = derived.job.spec
    source: dict[str, Any]
    if MODEL_PACKAGE_PART in derived.source:
        package = {"modelPackageArn": derived.source}
        source = {"customModelDataSource": {"modelPackageArnDataSource": package}}
    else:
        source = {"modelSourceConfig": {"s3DataSource": {"s3Uri": derived.source}}}
        source["roleArn"] = spec.bedrock.import_role_arn or spec.bedrock.role_arn
    key = spec.bedrock.kms_key_id
    return {
        "modelName": request.custom_model_name(name),
        **source,
        "modelTags": to_tag_list(with_cloudft_tags(spec.tags, name, token)),
        "clientRequestToken": token,
        **({"modelKmsKeyArn": key} if key else {}),
    }


def request_token(derived: DerivedJob, build: BuildParameters) -> str:
    """Return the name of the request: 32 hex digits that follow from all of it."""
    content: Mapping[str, object] = {"request": build(derived, "NAME", "TOKEN")}
    return requests.request_token(derived, request.location_of(derived.job), content)


def create_call(derived: DerivedJob, operation: str, build: BuildParameters) -> ApiCall:
    """Return the one call of the plan."""
    token = request_token(derived, build)
    name = job_id(derived.job.spec.name, token)
    return ApiCall(service="bedrock", operation=operation, parameters=build(derived, name, token))
