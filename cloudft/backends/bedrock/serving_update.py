"""Put another model behind a deployment or provisioned throughput: once, and back again.

Neither UpdateCustomModelDeployment nor UpdateProvisionedModelThroughput has a client token. So what
the deployment serves is read before each attempt to send the update, and an update whose answer was
lost is not sent again where it was taken. What it serves before and after is written into its tags
before the update is sent: any machine can finish an interrupted update, or roll it back.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from tenacity import Retrying, retry_if_result, stop_after_delay, wait_exponential

from cloudft.aws import tags as tag_names
from cloudft.aws.client import Aws
from cloudft.backends.bedrock import inventory
from cloudft.backends.bedrock.account_helpers import get_tags
from cloudft.backends.bedrock.request import custom_model_name
from cloudft.backends.bedrock.serving_state import ServingState, read_serving_state
from cloudft.backends.resources import (
    CloudResource,
    ServingCall,
    ServingUpdatePlan,
    not_owned_error,
)
from cloudft.errors import (
    CloudRefused,
    CloudUnreachable,
    CredentialsExpired,
    JobStateConflict,
    PermissionDenied,
    ResourceNotFound,
    UsageError,
)
from cloudft.storage.atomic_files import as_store_error, make_private_folder, try_lock

READY_TIMEOUT_S = 1800.0
"""How long an update is followed."""
LOCK_TIMEOUT_S = 60.0
"""How long another process of this machine may take to send an update of the same deployment."""
MAX_SENDS = 5
"""How often an update is sent that did not reach AWS."""
UPDATE_OPERATIONS = {
    "deployment": (
        "update_custom_model_deployment",
        "customModelDeploymentIdentifier",
        "modelArn",
    ),
    "provisioned-throughput": (
        "update_provisioned_model_throughput",
        "provisionedModelId",
        "desiredModelId",
    ),
}
"""Operation that updates a resource of each kind; its parameters for resource and model."""
FINISHED = {"update": "updated", "rollback": "rolled-back"}
"""Value of UPDATE_TAG after an update of each kind."""
IMPORTED = "imported"
"""In place of the base model in the ARN of a custom model that no customization job made."""


def find_deployment(aws: Aws, reference: str, job_ids: Collection[str]) -> CloudResource:
    """Return the deployment or throughput of that ARN or name, or that serves one of these jobs.

    Else the one that was created for one of these jobs, and serves another one since an update.
    Raise UsageError where there is none, several, or one that cloudft did not create.
    """
    servings = list(inventory.list_servings(aws))
    found = [one for one in servings if reference in (one.id, one.name)] or [
        one for one in servings if one.job is not None and one.job in job_ids
    ]
    if not found:
        made_for = {custom_model_name(f"{job}{end}")[:63] for job in job_ids for end in ("", "-pt")}
        found = [one for one in servings if one.job is not None and one.name in made_for]
    if not found:
        raise UsageError(
            f"no deployment is named {reference}, and none serves a job of that name",
            fix="`cloudft ps` lists them; or check --profile and --region.",
        )
    if len(found) > 1:
        names = ", ".join(f"{one.kind} {one.name} ({one.id})" for one in found)
        raise UsageError(f"{reference} is served by {names}", fix="name one of them by its ARN.")
    [resource] = found
    if resource.job is None:
        raise not_owned_error(resource, "update")
    return resource


def plan_update(aws: Aws, resource: CloudResource, model: str, job_id: str) -> ServingUpdatePlan:
    """Return the plan that puts the model of a job behind a deployment.

    Raise UsageError for a model of another base, JobStateConflict while another update is under
    way.
    """
    _require_same_base(resource, model, job_id)
    return _plan(aws, resource, "update", model, job_id)


def plan_rollback(aws: Aws, resource: CloudResource) -> ServingUpdatePlan:
    """Return the plan that puts back the model that a deployment served before its last update.

    A rollback that was interrupted is continued, and one that has ended is not undone by another:
    the plan does nothing until the next update. Raise JobStateConflict where no update is recorded,
    where that model was removed, or where somebody else has updated the deployment since.
    """
    tags = get_tags(aws, resource.id, resource.name)
    is_rolled_back = tags.get(tag_names.UPDATE_TAG) in ("rollback", FINISHED["rollback"])
    arn_tag, job_tag = (
        (tag_names.UPDATE_TO_TAG, tag_names.UPDATE_TO_JOB_TAG)
        if is_rolled_back
        else (tag_names.UPDATE_FROM_TAG, tag_names.UPDATE_FROM_JOB_TAG)
    )
    model, job = tags.get(arn_tag), tags.get(job_tag)
    fix = f"`cloudft deploy JOB --update {resource.name}` puts the model of a job behind it."
    if model is None or job is None:
        message = f"{resource.kind} {resource.name} has had no update: there is no model to restore"
        raise JobStateConflict(message, fix=fix)
    try:
        failure = f"can't read the model of {job}"
        aws.call(failure, "bedrock", "get_custom_model", modelIdentifier=model)
    except ResourceNotFound as error:
        message = f"the model of {job}, which {resource.name} served before, was removed ({model})"
        raise JobStateConflict(message, fix=fix) from error
    _require_last_update(aws, resource, tags)
    return _plan(aws, resource, "rollback", model, job)


def _require_last_update(aws: Aws, resource: CloudResource, tags: Mapping[str, str]) -> None:
    """Raise JobStateConflict where the last update is not the one that the tags record.

    The model of before the recorded one is not the model of before the last one.
    """
    state = read_serving_state(aws, resource)
    recorded = [tags.get(name) for name in (tag_names.UPDATE_FROM_TAG, tag_names.UPDATE_TO_TAG)]
    if not state.is_pending and state.model not in recorded:
        raise JobStateConflict(
            f"{resource.name} serves {state.model}, which no update by cloudft put behind it:"
            " somebody else updated it, and which model to restore is not recorded",
            fix=f"see `cloudft ps`; `cloudft deploy JOB --update {resource.name}` puts the model of"
            " a job behind it.",
        )


def _require_same_base(resource: CloudResource, model: str, job_id: str) -> None:
    """Raise UsageError where a model was customized from another base than the served one.

    AWS refuses that for provisioned throughput (botocore, `desiredModelId`). For deployments no
    source says that it is possible; and the clients' requests would change, and the price.
    """
    before, after = _base_of(resource.model), _base_of(model)
    if IMPORTED not in (before, after) and before != after:
        raise UsageError(
            f"{resource.kind} {resource.name} serves a model customized from {before},"
            f" and that of {job_id} was customized from {after}",
            fix=f"`cloudft deploy {job_id}` serves it by a deployment of its own.",
        )


def _base_of(model: str | None) -> str:
    """Return the id of the base model, which is part of a custom model's ARN."""
    return str(model).rpartition("/")[0].rpartition("/")[2]


def _plan(
    aws: Aws,
    resource: CloudResource,
    kind: Literal["update", "rollback"],
    model: str,
    job: str,
) -> ServingUpdatePlan:
    state = read_serving_state(aws, resource)
    plan = ServingUpdatePlan(kind, resource, state.model, str(resource.job), model, job, ())
    if state.target == model:
        # It may be that an update was interrupted before its end was written into the tags.
        is_finished = resource.job == job and resource.next_model is None and not state.is_pending
        return replace(plan, calls=() if is_finished else (_finish_call(plan),))
    _require_not_pending(plan, state)
    return replace(plan, calls=(_begin_call(plan), _update_call(plan), _finish_call(plan)))


def _begin_call(plan: ServingUpdatePlan) -> ServingCall:
    tags = {
        tag_names.UPDATE_TAG: plan.kind,
        tag_names.UPDATE_FROM_TAG: plan.from_model,
        tag_names.UPDATE_FROM_JOB_TAG: plan.from_job,
        tag_names.UPDATE_TO_TAG: plan.to_model,
        tag_names.UPDATE_TO_JOB_TAG: plan.to_job,
    }
    return _tag_call(plan.resource, tags)


def _finish_call(plan: ServingUpdatePlan) -> ServingCall:
    # With the model once more: an update that was begun and never sent may have left another one.
    tags = {
        tag_names.JOB_TAG: plan.to_job,
        tag_names.UPDATE_TAG: FINISHED[plan.kind],
        tag_names.UPDATE_TO_TAG: plan.to_model,
        tag_names.UPDATE_TO_JOB_TAG: plan.to_job,
    }
    return _tag_call(plan.resource, tags)


def _tag_call(resource: CloudResource, tags: dict[str, str]) -> ServingCall:
    parameters = {"resourceARN": resource.id, "tags": tag_names.to_tag_list(tags)}
    return {"service": "bedrock", "operation": "tag_resource", "parameters": parameters}


def _update_call(plan: ServingUpdatePlan) -> ServingCall:
    operation, resource_parameter, model_parameter = UPDATE_OPERATIONS[plan.resource.kind]
    parameters = {resource_parameter: plan.resource.id, model_parameter: plan.to_model}
    return {"service": "bedrock", "operation": operation, "parameters": parameters}


def apply_update(
    aws: Aws, plan: ServingUpdatePlan, folder: Path, sleep: Callable[[float], None] = time.sleep
) -> CloudResource:
    """Send the update unless it was taken before, and wait until the model answers.

    `folder` has the lock. Return the deployment: `ready`, or `Updating` after READY_TIMEOUT_S.
    Raise JobStateConflict for one that was updated by somebody else since the plan, and for an
    update that failed.
    """
    resource = plan.resource
    with _lock(resource, folder):
        state = read_serving_state(aws, resource)
        if state.target != plan.to_model:
            _require_not_pending(plan, state)
            _require_planned_model(plan, state)
            _call(aws, plan, _begin_call(plan))
            _send(aws, plan, sleep)
    with _update_continues(plan):
        state = _wait_until_ready(aws, resource)
    if state.is_pending:
        return replace(resource, status="Updating", next_model=plan.to_model)
    if state.target != plan.to_model:
        if state.failure is not None:
            _call(aws, plan, _tag_call(resource, {tag_names.UPDATE_TAG: FINISHED[plan.kind]}))
        raise _failed_error(plan, state)
    with _update_continues(plan), _lock(resource, folder):
        # Read again under the lock: another process may have begun the next update.
        if read_serving_state(aws, resource).target == plan.to_model:
            _call(aws, plan, _finish_call(plan))
    return replace(
        resource,
        status="ready",
        model=plan.to_model,
        job=plan.to_job,
        previous_model=plan.from_model if plan.kind == "update" and plan.calls[1:] else None,
        next_model=None,
    )


def _call(aws: Aws, plan: ServingUpdatePlan, call: ServingCall) -> None:
    failure = f"the {plan.kind} of {plan.resource.name} can't be recorded in its tags"
    aws.call(failure, call["service"], call["operation"], **call["parameters"])


@contextlib.contextmanager
def _lock(resource: CloudResource, folder: Path) -> Iterator[None]:
    """Let one process of this machine at a time decide whether an update has to be sent."""
    path = folder / f"{resource.id.rpartition('/')[2]}.lock"
    with as_store_error(f"the update of {resource.name} can't be locked", path):
        make_private_folder(folder)
        descriptor = try_lock(path, timeout_s=LOCK_TIMEOUT_S)
    if descriptor is None:
        raise JobStateConflict(
            f"another process is updating {resource.name}", fix="wait for it, then try again."
        )
    try:
        yield
    finally:
        os.close(descriptor)


def _require_not_pending(plan: ServingUpdatePlan, state: ServingState) -> None:
    """Raise JobStateConflict while the deployment is made, or updated to another model."""
    resource = plan.resource
    if not state.is_pending:
        return
    doing = "being created" if state.target == state.model else f"being updated to {state.target}"
    raise JobStateConflict(
        f"{resource.kind} {resource.name} is {doing}",
        fix="wait for the end of that, which `cloudft ps` shows; then try again.",
    )


def _require_planned_model(plan: ServingUpdatePlan, state: ServingState) -> None:
    """Raise JobStateConflict where the deployment serves another model than it did in the plan."""
    if state.model != plan.from_model:
        raise JobStateConflict(
            f"{plan.resource.name} serves {state.model} now, no longer {plan.from_model}:"
            " somebody else updated it, and nothing was changed",
            fix="see `cloudft ps`, and run this again if it still shall be updated.",
        )


def _send(aws: Aws, plan: ServingUpdatePlan, sleep: Callable[[float], None]) -> None:
    """Send the update until AWS has taken it once; look what is served before sending it again."""
    call = _update_call(plan)
    failure = f"{plan.resource.name} can't be updated"
    for attempt in range(MAX_SENDS):
        try:
            # Not `call`, which sends again what has no client token.
            aws.call_without_retry(failure, "bedrock", call["operation"], **call["parameters"])
            return
        except (PermissionDenied, ResourceNotFound, CredentialsExpired):
            raise
        except (CloudRefused, CloudUnreachable) as error:
            state = read_serving_state(aws, plan.resource)
            if state.target == plan.to_model:
                return  # its answer was lost, or another machine sent the same
            if isinstance(error, CloudRefused) or attempt + 1 == MAX_SENDS:
                raise
            _require_not_pending(plan, state)
            _require_planned_model(plan, state)
            sleep(0.2 * 2**attempt)


def _wait_until_ready(aws: Aws, resource: CloudResource) -> ServingState:
    """Return the state once nothing is pending, or as it is after READY_TIMEOUT_S.

    Raise JobStateConflict for a deployment that was removed meanwhile.
    """
    retrying = Retrying(
        retry=retry_if_result(lambda state: state.is_pending),
        stop=stop_after_delay(READY_TIMEOUT_S),
        wait=wait_exponential(multiplier=0.5, max=30),
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
    )
    try:
        state: ServingState = retrying(read_serving_state, aws, resource)
    except ResourceNotFound as error:
        raise JobStateConflict(
            f"{resource.name} was removed while it was being updated",
            fix="`cloudft deploy JOB` creates a new one.",
        ) from error
    return state


def _failed_error(plan: ServingUpdatePlan, state: ServingState) -> JobStateConflict:
    """Return the error for an update that did not end with the planned model."""
    resource, served = plan.resource, _served_text(plan, state)
    if state.failure is None:
        return JobStateConflict(
            f"{resource.name} was updated by somebody else meanwhile: it serves {served}",
            fix="see `cloudft ps`, and run this again if it still shall be updated.",
        )
    now = f"it still serves {served}"
    fix = "run this again to try once more"
    if resource.kind != "deployment":
        now = f"its status is Failed, and its model {served}"
        fix += f", or `cloudft deploy --rollback {resource.id}`"
    return JobStateConflict(
        f"the {plan.kind} of {resource.kind} {resource.name} to the model of {plan.to_job} failed:"
        f" {state.failure}; {now}",
        fix=f"{fix}.",
    )


def _served_text(plan: ServingUpdatePlan, state: ServingState) -> str:
    jobs = {plan.from_model: plan.from_job, plan.to_model: plan.to_job}
    job = jobs.get(state.model)
    return f"that of {job} ({state.model})" if job else state.model


@contextlib.contextmanager
def _update_continues(plan: ServingUpdatePlan) -> Iterator[None]:
    """Add to errors that the update continues, although its progress can't be read."""
    name = plan.resource.name
    command = f"cloudft deploy {plan.to_job} --update {name}"
    if plan.kind == "rollback":
        command = f"cloudft deploy --rollback {name}"
    try:
        yield
    except (CloudRefused, CloudUnreachable) as error:
        raise type(error)(
            f"the {plan.kind} of {name} was sent and continues, but {error.message}",
            fix=f"{error.fix} Then `{command}` follows it.",
        ) from error
