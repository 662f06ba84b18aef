"""Read what a deployment or provisioned throughput serves: now, after an update, and before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloudft.aws.client import Aws
from cloudft.aws.tags import (
    JOB_TAG,
    UPDATE_FROM_JOB_TAG,
    UPDATE_FROM_TAG,
    UPDATE_TAG,
    UPDATE_TO_JOB_TAG,
    UPDATE_TO_TAG,
)
from cloudft.backends.resources import CloudResource

GET_OPERATIONS = {
    "deployment": ("get_custom_model_deployment", "customModelDeploymentIdentifier"),
    "provisioned-throughput": ("get_provisioned_model_throughput", "provisionedModelId"),
}
"""Operation that reads a resource of each kind, and its parameter."""
PENDING_STATUSES = {"Creating", "Updating"}


@dataclass(frozen=True)
class ServingState:
    """What a resource serves now (`model`), and what it serves when it is ready (`target`).

    `target` is None where it is not ready and will not be: its creation or its last update failed.
    `failure` says why the last update failed; None where it did not.
    """

    model: str
    target: str | None
    is_pending: bool
    failure: str | None = None


def read_serving_state(aws: Aws, resource: CloudResource) -> ServingState:
    """Return the state of a deployment or throughput. Raise CloudRefused and CloudUnreachable."""
    operation, parameter = GET_OPERATIONS[resource.kind]
    failure = f"can't read {resource.name}"
    response = aws.call(failure, "bedrock", operation, **{parameter: resource.id})
    if resource.kind == "deployment":
        return _deployment_state(response)
    return _throughput_state(response)


def _deployment_state(response: Mapping[str, Any]) -> ServingState:
    details: Mapping[str, Any] = response.get("updateDetails") or {}
    status, model = details.get("updateStatus"), str(response["modelArn"])
    if status == "Updating":
        return ServingState(model, str(details["modelArn"]), is_pending=True)
    if response["status"] == "Failed":
        return ServingState(model, None, is_pending=False, failure=_failure(response))
    if status == "UpdateFailed":
        return ServingState(model, model, is_pending=False, failure=_failure(response))
    if status == "UpdateCompleted":
        model = str(details["modelArn"])
    return ServingState(model, model, is_pending=response["status"] in PENDING_STATUSES)


def _throughput_state(response: Mapping[str, Any]) -> ServingState:
    status, model = response["status"], str(response["modelArn"])
    if status == "Failed":
        return ServingState(model, None, is_pending=False, failure=_failure(response))
    target = str(response.get("desiredModelArn") or model)
    return ServingState(model, target, is_pending=status in PENDING_STATUSES)


def _failure(response: Mapping[str, Any]) -> str:
    return str(response.get("failureMessage") or "AWS names no reason")


def job_served(tags: Mapping[str, str], model: str | None) -> str | None:
    """Return the id of the job whose model is served; None for what cloudft did not create.

    During an update, and after one that was interrupted, the tag of the job may name the other one.
    """
    job = tags.get(JOB_TAG)
    if job is not None and model is not None:
        for arn_tag, job_tag in (
            (UPDATE_TO_TAG, UPDATE_TO_JOB_TAG),
            (UPDATE_FROM_TAG, UPDATE_FROM_JOB_TAG),
        ):
            if tags.get(arn_tag) == model:
                return tags.get(job_tag, job)
    return job


def models_before_and_after(
    tags: Mapping[str, str], model: str | None
) -> tuple[str | None, str | None]:
    """Return the model that a rollback puts back, and that of an update under way."""
    before, after = tags.get(UPDATE_FROM_TAG), tags.get(UPDATE_TO_TAG)
    kind = tags.get(UPDATE_TAG)
    return (
        before if kind in ("update", "updated") and before != model else None,
        after if kind in ("update", "rollback") and after != model else None,
    )
