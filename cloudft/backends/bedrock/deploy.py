"""Deploy a tuned model: create its deployment once, find it again, renew its time to live.

The name follows from the job, so that two deployments of one job can't exist at the same time. The
client token follows from the attempt (deployment_attempts.py), so that a removed deployment can be
created again.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone

from tenacity import Retrying, retry_if_result, stop_after_delay, wait_exponential

from cloudft import catalogue
from cloudft.aws.arn import parse_arn
from cloudft.aws.client import Aws
from cloudft.aws.tags import (
    EXPIRES_TAG,
    JOB_TAG,
    from_tag_list,
    to_tag_list,
    with_cloudft_tags,
)
from cloudft.backends.bedrock import inventory, request
from cloudft.backends.bedrock.api_shapes import CustomizationJob
from cloudft.backends.bedrock.deployment_attempts import DeploymentAttempt, DeploymentAttempts
from cloudft.backends.bedrock.inference import catalogue_model
from cloudft.backends.resources import CloudResource, ServingCall, ServingPlan
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
"""Kind of the resource that a plan of each kind creates."""
RESPONSE_ARN_KEYS = {"on-demand": "customModelDeploymentArn", "provisioned": "provisionedModelArn"}
READY_TIMEOUT_S = 1800.0
"""How long a creation is followed; that of provisioned throughput is slow."""
LIST_DELAY_S = 3.0
"""How long a new resource may be missing from the list before it counts as removed."""


def plan_deployment(
    job: CustomizationJob, *, provisioned: bool, units: int, hours: float | None
) -> ServingPlan:
    """Return the plan that deploys a job's model, with the token of a new attempt.

    Raise UsageError where Bedrock does not serve the model so, or where units have no meaning.
    """
    model = catalogue_model(job)
    modes = model.serving if model else ()
    kind = "provisioned" if provisioned or "on-demand" not in modes else "on-demand"
    if modes and kind not in modes:
        raise UsageError(
            f"Bedrock serves a tuned {model.alias if model else 'model'} by {' or '.join(modes)}",
            fix="remove --provisioned.",
        )
    if kind == "on-demand" and units != 1:
        raise UsageError(
            f"a deployment on demand has no model units, but --units is {units}",
            fix="add --provisioned, or remove --units.",
        )
    suffix = "-pt" if kind == "provisioned" else ""
    name = request.custom_model_name(f"{job['jobName']}{suffix}")[:63]
    arn, token = job["outputModelArn"], secrets.token_hex(16)
    tags = to_tag_list(with_cloudft_tags({}, job["jobName"], token))
    expires = None if hours is None else _expiry_time(hours)
    if expires is not None:
        tags.append({"key": EXPIRES_TAG, "value": expires})
    if kind == "on-demand":
        operation = "create_custom_model_deployment"
        parameters: dict[str, object] = {"modelDeploymentName": name, "modelArn": arn}
    else:
        operation = "create_provisioned_model_throughput"
        parameters = {"provisionedModelName": name, "modelId": arn, "modelUnits": units}
    parameters |= {"tags": tags, "clientRequestToken": token}
    call: ServingCall = {
        "service": "bedrock",
        "operation": operation,
        "parameters": parameters,
    }
    return ServingPlan(
        kind, name, call, _serving_price(model, parse_arn(arn).region, kind, units), expires
    )


def with_existing_resource(aws: Aws, plan: ServingPlan) -> ServingPlan:
    """Return the plan with the resource that serves the model already.

    Raise JobStateConflict where another resource serves it.
    """
    existing = _find_existing(aws, plan)
    renewal = _renewal_call(plan, existing) if existing else None
    return replace(plan, existing=existing, renewal=renewal)


def _renewal_call(plan: ServingPlan, existing: CloudResource) -> ServingCall | None:
    """Return the call that sets the plan's time to live; None where it stays as it is."""
    if plan.expires_at is None or existing.expires_at == plan.expires_at:
        return None
    tags = to_tag_list({EXPIRES_TAG: plan.expires_at})
    parameters = {"resourceARN": existing.id, "tags": tags}
    return {"service": "bedrock", "operation": "tag_resource", "parameters": parameters}


def _expiry_time(hours: float) -> str:
    return (datetime.now(timezone.utc) + timedelta(hours=hours)).isoformat(timespec="seconds")


def _serving_price(
    model: catalogue.Model | None, region: str, kind: str, units: int
) -> dict[str, float | None]:
    prices = model.prices_in(region) if model else None
    unit = prices.usd("provisioned_unit_hour") if prices else None
    if kind == "on-demand":
        hour: float | None = 0.0
    else:
        hour = None if unit is None else unit * units
    month = None if hour is None else hour * cost.HOURS_PER_MONTH
    return {"perHour": hour, "perMonth": month}


def deploy(aws: Aws, plan: ServingPlan, attempts: DeploymentAttempts) -> CloudResource:
    """Create the deployment, or renew its time to live; wait until it serves.

    Raise JobStateConflict for a deployment that failed or was removed meanwhile.
    """
    resource = _find_existing(aws, plan) or _create_or_adopt(aws, plan, attempts)
    if renewal := _renewal_call(plan, resource):
        failure = f"the time to live of {resource.name} can't be renewed"
        aws.call(failure, "bedrock", renewal["operation"], **renewal["parameters"])
        resource = replace(resource, expires_at=plan.expires_at)
    resource = _wait_until_ready(aws, plan, resource)
    if resource.status == "Failed":
        raise JobStateConflict(
            f"{resource.kind} {resource.name} could not be created: its status is Failed",
            fix=f"`cloudft undeploy {resource.job or 'JOB'}` removes it; then try again.",
        )
    return resource


def _wait_until_ready(aws: Aws, plan: ServingPlan, resource: CloudResource) -> CloudResource:
    """Return the resource once it is not pending any more, or as it is after READY_TIMEOUT_S."""
    if resource.status not in PENDING_STATUSES:
        return resource
    retrying = Retrying(
        retry=retry_if_result(lambda seen: seen is not None and seen.status in PENDING_STATUSES),
        stop=stop_after_delay(READY_TIMEOUT_S),
        wait=wait_exponential(multiplier=0.5, max=30),
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else resource,
    )
    with _creation_continues(plan):
        seen: CloudResource | None = retrying(
            _find_serving, aws, lambda serving: serving.id == resource.id
        )
    if seen is None:
        raise _removed_error(plan)
    return seen


def _removed_error(plan: ServingPlan) -> JobStateConflict:
    return JobStateConflict(
        f"{plan.name} was removed while it was being created", fix="deploy it again."
    )


def _find_serving(aws: Aws, matches: Callable[[CloudResource], bool]) -> CloudResource | None:
    return next((serving for serving in inventory.list_servings(aws) if matches(serving)), None)


def _served_model(plan: ServingPlan) -> str:
    parameters = plan.call["parameters"]
    return str(parameters.get("modelArn") or parameters["modelId"])


def _find_existing(aws: Aws, plan: ServingPlan) -> CloudResource | None:
    """Return the resource that serves the model exactly as the plan would, else None.

    Raise JobStateConflict where another kind of resource serves the model, ResourceConflict where
    the plan's name is in use for something else.
    """
    model, kind = _served_model(plan), RESOURCE_KINDS[plan.kind]
    servings = list(inventory.list_servings(aws))
    same_name = [s for s in servings if s.kind == kind and s.name == plan.name]
    if not same_name:
        other = next((serving for serving in servings if serving.model == model), None)
        if other is not None:
            raise JobStateConflict(
                f"{other.kind} {other.name} serves this model already; the plan creates a {kind}",
                fix=f"`cloudft undeploy {other.job or 'JOB'}` removes it"
                f"{_provisioned_flag_hint(other, kind)}.",
            )
        return None
    _raise_if_foreign(plan, same_name[0])
    _raise_if_other_units(aws, plan, same_name[0])
    return same_name[0]


def _provisioned_flag_hint(other: CloudResource, kind: str) -> str:
    if other.kind == kind:
        return ""
    action = "add" if other.kind == RESOURCE_KINDS["provisioned"] else "remove"
    return f"; {action} --provisioned to keep it"


def _raise_if_foreign(plan: ServingPlan, resource: CloudResource) -> None:
    """Raise ResourceConflict where a resource has the plan's name but another model or job."""
    tags = from_tag_list(plan.call["parameters"]["tags"])
    if resource.model != _served_model(plan):
        difference = f"it serves another model ({resource.model})"
    elif resource.job != tags[JOB_TAG]:
        difference = "it has no tag of this job"
    else:
        return
    raise ResourceConflict(
        f"a {resource.kind} {resource.name} exists, and {difference}",
        fix="remove it with the tool that created it, then deploy again.",
    )


def _raise_if_other_units(aws: Aws, plan: ServingPlan, resource: CloudResource) -> None:
    """Raise JobStateConflict for provisioned throughput with other model units than the plan."""
    units = plan.call["parameters"].get("modelUnits")
    if units is None:
        return
    response = aws.call(
        f"can't read {resource.name}",
        "bedrock",
        "get_provisioned_model_throughput",
        provisionedModelId=resource.id,
    )
    existing = response.get("desiredModelUnits", response["modelUnits"])
    if existing != units:
        raise JobStateConflict(
            f"{resource.kind} {resource.name} serves this model with {existing} model units,"
            f" and --units is {units}",
            fix=f"set --units {existing} to keep it, or `cloudft undeploy {resource.job or 'JOB'}`"
            " first.",
        )


def _create_or_adopt(aws: Aws, plan: ServingPlan, attempts: DeploymentAttempts) -> CloudResource:
    """Create the resource: by the interrupted attempt, if there is one, else by a new one.

    Raise JobStateConflict when it was removed meanwhile.
    """
    # The interrupted request is sent again as it was: its token makes AWS return what it created.
    interrupted = attempts.find_unanswered(plan.name, plan.call)
    if interrupted is not None:
        resource = _resend(aws, plan, interrupted, attempts)
        if resource is not None:
            return resource
    resource = _send(aws, plan, attempts.record_request(plan.name, plan.call), attempts)
    if resource is None:
        raise _removed_error(plan)
    return resource


def _resend(
    aws: Aws, plan: ServingPlan, attempt: DeploymentAttempt, attempts: DeploymentAttempts
) -> CloudResource | None:
    """Return what an interrupted attempt creates or created.

    None where that was removed since: AWS refuses its token then, and a new attempt is needed.
    """
    try:
        return _send(aws, plan, attempt, attempts)
    except (PermissionDenied, ResourceNotFound, CredentialsExpired):
        raise
    except CloudRefused:
        return None


def _send(
    aws: Aws, plan: ServingPlan, attempt: DeploymentAttempt, attempts: DeploymentAttempts
) -> CloudResource | None:
    """Send an attempt's request; return what it created once it is listed, else None.

    A name in use means an attempt whose response was lost, or another process that deploys the
    same job: the resource of that name is adopted. Raise ResourceConflict where it is foreign.
    """
    try:
        response = aws.call(
            f"can't create {plan.name}", "bedrock", attempt.operation, **attempt.parameters
        )
    except ResourceConflict:
        kind, name = RESOURCE_KINDS[plan.kind], plan.name
        resource = _wait_until_listed(aws, lambda one: one.kind == kind and one.name == name)
        if resource is None:
            raise
        _raise_if_foreign(plan, resource)
        _raise_if_other_units(aws, plan, resource)
        attempts.record_response(name, attempt, resource.id)
        return resource
    arn = str(response[RESPONSE_ARN_KEYS[plan.kind]])
    attempts.record_response(plan.name, attempt, arn)
    with _creation_continues(plan):
        return _wait_until_listed(aws, lambda one: one.id == arn)


@contextlib.contextmanager
def _creation_continues(plan: ServingPlan) -> Iterator[None]:
    """Add to errors that the creation continues, although its progress can't be read."""
    job = from_tag_list(plan.call["parameters"]["tags"])[JOB_TAG]
    try:
        yield
    except (CloudRefused, CloudUnreachable) as error:
        raise type(error)(
            f"{plan.name} is being created, but {error.message}",
            fix=f"{error.fix} Then `cloudft deploy {job}` finds it, `cloudft undeploy {job}`"
            " removes it.",
        ) from error


def _wait_until_listed(aws: Aws, matches: Callable[[CloudResource], bool]) -> CloudResource | None:
    """Return the matching resource once the list has it; None after LIST_DELAY_S."""
    retrying = Retrying(
        retry=retry_if_result(lambda seen: seen is None),
        stop=stop_after_delay(LIST_DELAY_S),
        wait=wait_exponential(multiplier=0.1, max=1),
        retry_error_callback=lambda state: None,
    )
    resource: CloudResource | None = retrying(_find_serving, aws, matches)
    return resource
