"""Serving a tuned model: made once, found again, renewed.

A name follows from the job, so that two of it can't stand at once; a token from the attempt
(attempts.py), so that what was removed can be made again.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

from tenacity import Retrying, retry_if_result, stop_after_delay, wait_exponential

from cloudft import catalogue
from cloudft.aws.client import Aws
from cloudft.aws.tags import EXPIRES_TAG, JOB_TAG, with_cloudft_tags
from cloudft.backends.bedrock import inventory, request
from cloudft.backends.bedrock.deployment_attempts import DeploymentAttempt, DeploymentAttempts
from cloudft.backends.bedrock.inference import catalogue_model
from cloudft.backends.resources import CloudResource, ServingPlan
from cloudft.catalogue import cost
from cloudft.errors import (
    CloudRefused,
    CloudUnreachable,
    CredentialsExpired,
    JobStateConflict,
    PermissionDenied,
    ResourceConflict,
    ResourceNotFound,
    UsageError,
)

PENDING_STATUSES = {"Creating", "Updating"}
RESOURCE_KINDS = {"on-demand": "deployment", "provisioned": "provisioned-throughput"}
"""What a plan of each kind makes."""
RESPONSE_ARN_KEYS = {"on-demand": "customModelDeploymentArn", "provisioned": "provisionedModelArn"}
READY_TIMEOUT_S = 1800.0
"""How long the making is followed; provisioned throughput takes its time."""
LIST_DELAY_S = 3.0
"""How long after its creation something may be missing from the list before it counts as gone."""


def plan_deployment(
    job: Mapping[str, Any], *, provisioned: bool, units: int, hours: float | None
) -> ServingPlan:
    """Return the call that serves a job's model. Its token is a new attempt's.

    Raises UsageError where the model has no such way, or where units mean nothing.
    """
    model = catalogue_model(job)
    ways = model.serving if model else ()
    kind = "provisioned" if provisioned or "on-demand" not in ways else "on-demand"
    if ways and kind not in ways:
        raise UsageError(
            f"Bedrock serves a tuned {model.alias if model else 'model'} by {' or '.join(ways)}",
            fix="leave --provisioned out.",
        )
    if kind == "on-demand" and units != 1:
        raise UsageError(
            f"a deployment on demand has no model units, and {units} are given",
            fix="add --provisioned, or leave --units out.",
        )
    name = request.custom_model_name(f"{job['jobName']}{'-pt' if kind == 'provisioned' else ''}")[
        :63
    ]
    arn, token = job["outputModelArn"], secrets.token_hex(16)
    tags = [
        {"key": key, "value": value}
        for key, value in with_cloudft_tags({}, job["jobName"], token).items()
    ]
    expires = None if hours is None else _expiry_time(hours)
    if expires is not None:
        tags.append({"key": EXPIRES_TAG, "value": expires})
    if kind == "on-demand":
        operation = "create_custom_model_deployment"
        parameters: dict[str, Any] = {"modelDeploymentName": name, "modelArn": arn}
    else:
        operation = "create_provisioned_model_throughput"
        parameters = {"provisionedModelName": name, "modelId": arn, "modelUnits": units}
    parameters |= {"tags": tags, "clientRequestToken": token}
    call = {"service": "bedrock", "operation": operation, "parameters": parameters}
    return ServingPlan(kind, name, call, _serving_price(model, kind, units), expires)


def with_existing_resource(aws: Aws, plan: ServingPlan) -> ServingPlan:
    """Return the plan with what serves the model already. Raises JobStateConflict for another."""
    stands = _find_existing(aws, plan)
    return replace(plan, existing=stands, renewal=_renewal_call(plan, stands) if stands else None)


def _renewal_call(wanted: ServingPlan, stands: CloudResource) -> dict[str, Any] | None:
    """Return the call that gives what stands the plan's time to live, where it has one."""
    if wanted.expires_at is None or stands.expires_at == wanted.expires_at:
        return None
    tags = [{"key": EXPIRES_TAG, "value": wanted.expires_at}]
    parameters = {"resourceARN": stands.id, "tags": tags}
    return {"service": "bedrock", "operation": "tag_resource", "parameters": parameters}


def _expiry_time(hours: float) -> str:
    return (datetime.now(timezone.utc) + timedelta(hours=hours)).isoformat(timespec="seconds")


def _serving_price(model: catalogue.Model | None, kind: str, units: int) -> dict[str, float | None]:
    prices = model.prices if model else None
    unit = prices.provisioned_unit_hour if prices else None
    if kind == "on-demand":
        hour: float | None = 0.0
    else:
        hour = None if unit is None else unit * units
    month = None if hour is None else hour * cost.HOURS_PER_MONTH
    return {"perHour": hour, "perMonth": month}


def deploy(aws: Aws, plan: ServingPlan, attempts: DeploymentAttempts) -> CloudResource:
    """Make what serves the model, or renew its time to live; wait until it serves.

    Raises JobStateConflict.
    """
    thing = _find_existing(aws, plan) or _create_or_adopt(aws, plan, attempts)
    if renewal := _renewal_call(plan, thing):
        what = f"the time to live of {thing.name} can't be renewed"
        aws.call(what, "bedrock", renewal["operation"], **renewal["parameters"])
        thing = replace(thing, expires_at=plan.expires_at)
    waits = Retrying(
        retry=retry_if_result(lambda seen: seen is not None and seen.status in PENDING_STATUSES),
        stop=stop_after_delay(READY_TIMEOUT_S),
        wait=wait_exponential(multiplier=0.5, max=30),
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else thing,
    )
    if thing.status in PENDING_STATUSES:
        with _creation_continues(plan):
            seen: CloudResource | None = waits(_find_serving, aws, lambda one: one.id == thing.id)
        if seen is None:
            raise _removed_error(plan)
        thing = seen
    if thing.status == "Failed":
        raise JobStateConflict(
            f"{thing.kind} {thing.name} could not be made: its status is Failed",
            fix=f"`cloudft undeploy {thing.job or 'JOB'}` removes it; then try again.",
        )
    return thing


def _removed_error(wanted: ServingPlan) -> JobStateConflict:
    return JobStateConflict(f"{wanted.name} was removed while it was made", fix="deploy it again.")


def _find_serving(aws: Aws, match: Callable[[CloudResource], bool]) -> CloudResource | None:
    return next((thing for thing in inventory.list_servings(aws) if match(thing)), None)


def _served_model(wanted: ServingPlan) -> str:
    parameters = wanted.call["parameters"]
    return str(parameters.get("modelArn") or parameters["modelId"])


def _find_existing(aws: Aws, wanted: ServingPlan) -> CloudResource | None:
    """Return what serves the model just as the plan wants it, if anything serves it.

    Raises JobStateConflict for what serves it in another way, AwsConflict for a taken name.
    """
    model, kind = _served_model(wanted), RESOURCE_KINDS[wanted.kind]
    there = list(inventory.list_servings(aws))
    named = next((t for t in there if t.kind == kind and t.name == wanted.name), None)
    if named is None:
        other = next((thing for thing in there if thing.model == model), None)
        if other is not None:
            raise JobStateConflict(
                f"{other.kind} {other.name} serves this model already; a {kind} is wanted",
                fix=f"`cloudft undeploy {other.job or 'JOB'}` removes it"
                f"{_provisioned_flag_hint(other, kind)}.",
            )
        return None
    _raise_if_foreign(wanted, named)
    _raise_if_other_units(aws, wanted, named)
    return named


def _provisioned_flag_hint(other: CloudResource, kind: str) -> str:
    if other.kind == kind:
        return ""
    action = "give" if other.kind == RESOURCE_KINDS["provisioned"] else "leave out"
    return f"; {action} --provisioned for it"


def _raise_if_foreign(wanted: ServingPlan, there: CloudResource) -> None:
    """Raise AwsConflict for something of the plan's name that is not the plan's."""
    tags = {tag["key"]: tag["value"] for tag in wanted.call["parameters"]["tags"]}
    if there.model != _served_model(wanted):
        other = f"it serves another model ({there.model})"
    elif there.job != tags[JOB_TAG]:
        other = "it has no tag of this job"
    else:
        return
    raise ResourceConflict(
        f"a {there.kind} {there.name} is there, and {other}",
        fix="remove it where it was made, then deploy again.",
    )


def _raise_if_other_units(aws: Aws, wanted: ServingPlan, there: CloudResource) -> None:
    """Raise JobStateConflict for provisioned throughput of another size than is wanted."""
    units = wanted.call["parameters"].get("modelUnits")
    if units is None:
        return
    what, operation = f"{there.name} can't be read", "get_provisioned_model_throughput"
    answer = aws.call(what, "bedrock", operation, provisionedModelId=there.id)
    has = answer.get("desiredModelUnits", answer["modelUnits"])
    if has != units:
        raise JobStateConflict(
            f"{there.kind} {there.name} serves this model with {has} model units;"
            f" {units} are wanted",
            fix=f"give --units {has} for what is there, or `cloudft undeploy {there.job or 'JOB'}`"
            " first.",
        )


def _create_or_adopt(aws: Aws, wanted: ServingPlan, attempts: DeploymentAttempts) -> CloudResource:
    """Make it: by the attempt that was cut off, where there is one, else by a new one.

    Raises JobStateConflict when it was removed meanwhile.
    """
    cut_off = attempts.find_unanswered(wanted.name, wanted.call)
    if cut_off is not None:
        thing = _resend(aws, wanted, cut_off, attempts)
        if thing is not None:
            return thing
    made = _send(aws, wanted, attempts.record_request(wanted.name, wanted.call), attempts)
    if made is None:
        raise _removed_error(wanted)
    return made


def _resend(
    aws: Aws, wanted: ServingPlan, attempt: DeploymentAttempt, attempts: DeploymentAttempts
) -> CloudResource | None:
    """Return what the attempt makes or made; None where that is gone, and its token used up."""
    try:
        return _send(aws, wanted, attempt, attempts)
    except (PermissionDenied, ResourceNotFound, CredentialsExpired):
        raise
    except CloudRefused:
        return None


def _send(
    aws: Aws, wanted: ServingPlan, attempt: DeploymentAttempt, attempts: DeploymentAttempts
) -> CloudResource | None:
    """Send an attempt's request; return what it made once it is listed, or None.

    A name that is taken is an attempt whose answer was lost, or another process beside this one:
    what has it is looked up. Raises AwsConflict where that is not the plan's.
    """
    what = f"{wanted.name} can't be made"
    try:
        answer = aws.call(what, "bedrock", attempt.operation, **attempt.parameters)
    except ResourceConflict:
        kind, name = RESOURCE_KINDS[wanted.kind], wanted.name
        thing = _wait_until_listed(aws, lambda one: one.kind == kind and one.name == name)
        if thing is None:
            raise
        _raise_if_foreign(wanted, thing)
        _raise_if_other_units(aws, wanted, thing)
        attempts.record_response(name, attempt, thing.id)
        return thing
    arn = str(answer[RESPONSE_ARN_KEYS[wanted.kind]])
    attempts.record_response(wanted.name, attempt, arn)
    with _creation_continues(wanted):
        return _wait_until_listed(aws, lambda one: one.id == arn)


@contextlib.contextmanager
def _creation_continues(wanted: ServingPlan) -> Iterator[None]:
    """Say of a failed look that the creation goes on without it."""
    job = next(tag["value"] for tag in wanted.call["parameters"]["tags"] if tag["key"] == JOB_TAG)
    try:
        yield
    except (CloudRefused, CloudUnreachable) as error:
        raise type(error)(
            f"{wanted.name} is being made, but {error.message}",
            fix=f"{error.fix} `cloudft deploy {job}` finds it then, `cloudft undeploy {job}`"
            " removes it.",
        ) from error


def _wait_until_listed(aws: Aws, match: Callable[[CloudResource], bool]) -> CloudResource | None:
    """Return what matches once the list has it; None when it does not come."""
    waits = Retrying(
        retry=retry_if_result(lambda seen: seen is None),
        stop=stop_after_delay(LIST_DELAY_S),
        wait=wait_exponential(multiplier=0.1, max=1),
        retry_error_callback=lambda state: None,
    )
    thing: CloudResource | None = waits(_find_serving, aws, match)
    return thing
