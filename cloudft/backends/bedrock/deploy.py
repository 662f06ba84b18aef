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

from cloudft import catalogue, cost
from cloudft.aws.client import Aws
from cloudft.aws.tags import EXPIRES, JOB, marked
from cloudft.backends.base import ServingPlan, Thing
from cloudft.backends.bedrock import inventory, request
from cloudft.backends.bedrock.attempts import Attempt, Attempts
from cloudft.backends.bedrock.serve import model_of
from cloudft.errors import (
    AwsConflict,
    AwsDenied,
    AwsNotFound,
    AwsRefused,
    AwsUnreachable,
    CredentialsExpired,
    JobStateConflict,
    UsageError,
)

UNDER_WAY = {"Creating", "Updating"}
KINDS = {"on-demand": "deployment", "provisioned": "provisioned-throughput"}
"""What a plan of each kind makes."""
ARNS = {"on-demand": "customModelDeploymentArn", "provisioned": "provisionedModelArn"}
READY_S = 1800.0
"""How long the making is followed; provisioned throughput takes its time."""
LISTED_S = 3.0
"""How long after its creation something may be missing from the list before it counts as gone."""


def plan(
    job: Mapping[str, Any], *, provisioned: bool, units: int, hours: float | None
) -> ServingPlan:
    """Return the call that serves a job's model. Its token is a new attempt's.

    Raises UsageError where the model has no such way, or where units mean nothing.
    """
    model = model_of(job)
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
    name = request.model_name(f"{job['jobName']}{'-pt' if kind == 'provisioned' else ''}")[:63]
    arn, token = job["outputModelArn"], secrets.token_hex(16)
    tags = [
        {"key": key, "value": value} for key, value in marked({}, job["jobName"], token).items()
    ]
    expires = None if hours is None else _after(hours)
    if expires is not None:
        tags.append({"key": EXPIRES, "value": expires})
    if kind == "on-demand":
        operation = "create_custom_model_deployment"
        parameters: dict[str, Any] = {"modelDeploymentName": name, "modelArn": arn}
    else:
        operation = "create_provisioned_model_throughput"
        parameters = {"provisionedModelName": name, "modelId": arn, "modelUnits": units}
    parameters |= {"tags": tags, "clientRequestToken": token}
    call = {"service": "bedrock", "operation": operation, "parameters": parameters}
    return ServingPlan(kind, name, call, _usd(model, kind, units), expires)


def looked_up(aws: Aws, wanted: ServingPlan) -> ServingPlan:
    """Return the plan with what serves the model already. Raises JobStateConflict for another."""
    stands = _standing(aws, wanted)
    return replace(wanted, stands=stands, renewal=_renewal(wanted, stands) if stands else None)


def _renewal(wanted: ServingPlan, stands: Thing) -> dict[str, Any] | None:
    """Return the call that gives what stands the plan's time to live, where it has one."""
    if wanted.expires_at is None or stands.expires_at == wanted.expires_at:
        return None
    tags = [{"key": EXPIRES, "value": wanted.expires_at}]
    parameters = {"resourceARN": stands.id, "tags": tags}
    return {"service": "bedrock", "operation": "tag_resource", "parameters": parameters}


def _after(hours: float) -> str:
    return (datetime.now(timezone.utc) + timedelta(hours=hours)).isoformat(timespec="seconds")


def _usd(model: catalogue.Model | None, kind: str, units: int) -> dict[str, float | None]:
    prices = model.prices if model else None
    unit = prices.provisioned_unit_hour if prices else None
    if kind == "on-demand":
        hour: float | None = 0.0
    else:
        hour = None if unit is None else unit * units
    month = None if hour is None else hour * cost.HOURS_PER_MONTH
    return {"perHour": hour, "perMonth": month}


def deploy(aws: Aws, wanted: ServingPlan, attempts: Attempts) -> Thing:
    """Make what serves the model, or renew its time to live; wait until it serves.

    Raises JobStateConflict.
    """
    thing = _standing(aws, wanted) or _made(aws, wanted, attempts)
    if renewal := _renewal(wanted, thing):
        what = f"the time to live of {thing.name} can't be renewed"
        aws.call(what, "bedrock", renewal["operation"], **renewal["parameters"])
        thing = replace(thing, expires_at=wanted.expires_at)
    waits = Retrying(
        retry=retry_if_result(lambda seen: seen is not None and seen.status in UNDER_WAY),
        stop=stop_after_delay(READY_S),
        wait=wait_exponential(multiplier=0.5, max=30),
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else thing,
    )
    if thing.status in UNDER_WAY:
        with _being_made(wanted):
            seen: Thing | None = waits(_listed, aws, lambda one: one.id == thing.id)
        if seen is None:
            raise _removed(wanted)
        thing = seen
    if thing.status == "Failed":
        raise JobStateConflict(
            f"{thing.kind} {thing.name} could not be made: its status is Failed",
            fix=f"`cloudft undeploy {thing.job or 'JOB'}` removes it; then try again.",
        )
    return thing


def _removed(wanted: ServingPlan) -> JobStateConflict:
    return JobStateConflict(f"{wanted.name} was removed while it was made", fix="deploy it again.")


def _listed(aws: Aws, match: Callable[[Thing], bool]) -> Thing | None:
    return next((thing for thing in inventory.servings(aws) if match(thing)), None)


def _model(wanted: ServingPlan) -> str:
    parameters = wanted.call["parameters"]
    return str(parameters.get("modelArn") or parameters["modelId"])


def _standing(aws: Aws, wanted: ServingPlan) -> Thing | None:
    """Return what serves the model just as the plan wants it, if anything serves it.

    Raises JobStateConflict for what serves it in another way, AwsConflict for a taken name.
    """
    model, kind = _model(wanted), KINDS[wanted.kind]
    there = list(inventory.servings(aws))
    named = next((t for t in there if t.kind == kind and t.name == wanted.name), None)
    if named is None:
        other = next((thing for thing in there if thing.model == model), None)
        if other is not None:
            raise JobStateConflict(
                f"{other.kind} {other.name} serves this model already; a {kind} is wanted",
                fix=f"`cloudft undeploy {other.job or 'JOB'}` removes it{_other_way(other, kind)}.",
            )
        return None
    _refuse_foreign(wanted, named)
    _refuse_units(aws, wanted, named)
    return named


def _other_way(other: Thing, kind: str) -> str:
    if other.kind == kind:
        return ""
    return f"; {'give' if other.kind == KINDS['provisioned'] else 'leave out'} --provisioned for it"


def _refuse_foreign(wanted: ServingPlan, there: Thing) -> None:
    """Raise AwsConflict for something of the plan's name that is not the plan's."""
    tags = {tag["key"]: tag["value"] for tag in wanted.call["parameters"]["tags"]}
    if there.model != _model(wanted):
        other = f"it serves another model ({there.model})"
    elif there.job != tags[JOB]:
        other = "it has no tag of this job"
    else:
        return
    raise AwsConflict(
        f"a {there.kind} {there.name} is there, and {other}",
        fix="remove it where it was made, then deploy again.",
    )


def _refuse_units(aws: Aws, wanted: ServingPlan, there: Thing) -> None:
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


def _made(aws: Aws, wanted: ServingPlan, attempts: Attempts) -> Thing:
    """Make it: by the attempt that was cut off, where there is one, else by a new one.

    Raises JobStateConflict when it was removed meanwhile.
    """
    cut_off = attempts.unanswered(wanted.name, wanted.call)
    if cut_off is not None:
        thing = _sent_again(aws, wanted, cut_off, attempts)
        if thing is not None:
            return thing
    made = _sent(aws, wanted, attempts.begin(wanted.name, wanted.call), attempts)
    if made is None:
        raise _removed(wanted)
    return made


def _sent_again(
    aws: Aws, wanted: ServingPlan, attempt: Attempt, attempts: Attempts
) -> Thing | None:
    """Return what the attempt makes or made; None where that is gone, and its token used up."""
    try:
        return _sent(aws, wanted, attempt, attempts)
    except (AwsDenied, AwsNotFound, CredentialsExpired):
        raise
    except AwsRefused:
        return None


def _sent(aws: Aws, wanted: ServingPlan, attempt: Attempt, attempts: Attempts) -> Thing | None:
    """Send an attempt's request; return what it made once it is listed, or None.

    A name that is taken is an attempt whose answer was lost, or another process beside this one:
    what has it is looked up. Raises AwsConflict where that is not the plan's.
    """
    what = f"{wanted.name} can't be made"
    try:
        answer = aws.call(what, "bedrock", attempt.operation, **attempt.parameters)
    except AwsConflict:
        kind, name = KINDS[wanted.kind], wanted.name
        thing = _appearing(aws, lambda one: one.kind == kind and one.name == name)
        if thing is None:
            raise
        _refuse_foreign(wanted, thing)
        _refuse_units(aws, wanted, thing)
        attempts.answered(name, attempt, thing.id)
        return thing
    arn = str(answer[ARNS[wanted.kind]])
    attempts.answered(wanted.name, attempt, arn)
    with _being_made(wanted):
        return _appearing(aws, lambda one: one.id == arn)


@contextlib.contextmanager
def _being_made(wanted: ServingPlan) -> Iterator[None]:
    """Say of a failed look that the creation goes on without it."""
    job = next(tag["value"] for tag in wanted.call["parameters"]["tags"] if tag["key"] == JOB)
    try:
        yield
    except (AwsRefused, AwsUnreachable) as error:
        raise type(error)(
            f"{wanted.name} is being made, but {error.message}",
            fix=f"{error.fix} `cloudft deploy {job}` finds it then, `cloudft undeploy {job}`"
            " removes it.",
        ) from error


def _appearing(aws: Aws, match: Callable[[Thing], bool]) -> Thing | None:
    """Return what matches once the list has it; None when it does not come."""
    waits = Retrying(
        retry=retry_if_result(lambda seen: seen is None),
        stop=stop_after_delay(LISTED_S),
        wait=wait_exponential(multiplier=0.1, max=1),
        retry_error_callback=lambda state: None,
    )
    thing: Thing | None = waits(_listed, aws, match)
    return thing
