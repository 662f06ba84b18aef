"""Deploy a tuned model: create its deployment once, find it again, renew its time to live.

The name follows from the job, so that two deployments of one job can't exist at the same time. The
client token follows from the attempt (deployment_attempts.py), so that a removed deployment can be
created again.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone

from tenacity import Retrying, retry_if_result, stop_after_delay, wait_exponential

from cloudft.aws.arn import parse_arn
from cloudft.aws.client import Aws
from cloudft.aws.tags import (
    EXPIRES_TAG,
    JOB_TAG,
    from_tag_list,
    to_tag_list,
    with_cloudft_tags,
)
from cloudft.backends.bedrock import inventory, request, serving_prices
from cloudft.backends.bedrock.api_shapes import CustomizationJob
from cloudft.backends.bedrock.deployment_attempts import DeploymentAttempt, DeploymentAttempts
from cloudft.backends.bedrock.inference import catalogue_model
from cloudft.backends.bedrock.serving_state import PENDING_STATUSES
from cloudft.backends.resources import CloudResource, ServingCall, ServingPlan
from cloudft.errors import (
    CloudRefused,
    CloudUnreachable,
    CredentialsExpired,
    JobStateConflict,
    PermissionDenied,
    QuotaExceeded,
    ResourceConflict,
    ResourceNotFound,
    UsageError,
)

RESOURCE_KINDS = {"on-demand": "deployment", "provisioned": "provisioned-throughput"}
"""Kind of the resource that a plan of each kind creates."""
RESPONSE_ARN_KEYS = {"on-demand": "customModelDeploymentArn", "provisioned": "provisionedModelArn"}
READY_TIMEOUT_S = 1800.0
"""How long a creation is followed; that of provisioned throughput is slow."""
LIST_DELAY_S = 3.0
"""How long a new resource may be missing from the list before it counts as removed."""


def plan_deployment(
    job: CustomizationJob,
    *,
    provisioned: bool,
    units: int,
    hours: float | None,
    commitment: str | None = None,
) -> ServingPlan:
    """Return the plan that deploys a job's model, with the token of a new attempt.

    Raise UsageError where Bedrock does not serve the model so, or where units or a commitment have
    no meaning.
    """
    model = catalogue_model(job)
    modes = model.serving if model else ()
    kind = "provisioned" if provisioned or "on-demand" not in modes else "on-demand"
    if modes and kind not in modes:
        raise UsageError(
            f"Bedrock serves a tuned {model.alias if model else 'model'} by {' or '.join(modes)}",
            fix="remove --provisioned.",
        )
    _require_no_throughput_options(kind, units, commitment)
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
        parameters |= {"commitmentDuration": commitment} if commitment else {}
    parameters |= {"tags": tags, "clientRequestToken": token}
    call: ServingCall = {
        "service": "bedrock",
        "operation": operation,
        "parameters": parameters,
    }
    prices = model.prices_in(parse_arn(arn).region) if model else None
    usd = serving_prices.usd_of_serving(prices, kind, units, commitment)
    term = serving_prices.plan_commitment(commitment, usd) if commitment else None
    return ServingPlan(kind, name, call, usd, expires, commitment=term)


def _require_no_throughput_options(kind: str, units: int, commitment: str | None) -> None:
    """Raise UsageError for options of provisioned throughput in a deployment on demand."""
    if kind != "on-demand":
        return
    if units != 1:
        raise UsageError(
            f"a deployment on demand has no model units, but --units is {units}",
            fix="add --provisioned, or remove --units.",
        )
    if commitment is not None:
        raise UsageError(
            f"a deployment on demand has no commitment, but --commitment is {commitment}",
            fix="add --provisioned, or remove --commitment.",
        )


def with_existing_resource(aws: Aws, plan: ServingPlan) -> ServingPlan:
    """Return the plan with the resource that serves the model already.

    Raise JobStateConflict where another resource serves it.
    """
    existing = _find_existing(aws, plan)
    renewal = _renewal_call(plan, existing) if existing else None
    return replace(plan, existing=existing, renewal=renewal)


def require_not_legacy(aws: Aws, plan: ServingPlan, job: CustomizationJob) -> None:
    """Raise UsageError for new throughput of a model that the account lists as Legacy.

    AWS refuses that: Bedrock user guide, "Model lifecycle". Where the list can't be read, AWS's own
    answer has to do.
    """
    if plan.kind != "provisioned" or plan.existing is not None:
        return
    base = job["baseModelArn"].rpartition("/")[2]
    try:
        response = aws.call("models can't be listed", "bedrock", "list_foundation_models")
    except CloudRefused:
        return
    states = {
        model.get("modelLifecycle", {}).get("status")
        for model in response["modelSummaries"]
        if model["modelId"] == base
    }
    if "LEGACY" in states:
        raise UsageError(
            f"{base} is Legacy: AWS sells no new provisioned throughput for it",
            fix=f"`cloudft deploy {job['jobName']} --update DEPLOYMENT` puts the model behind"
            " throughput that exists; or customize another base model.",
        )


def _renewal_call(plan: ServingPlan, existing: CloudResource) -> ServingCall | None:
    """Return the call that sets the plan's time to live; None where it stays as it is."""
    if plan.expires_at is None or existing.expires_at == plan.expires_at:
        return None
    tags = to_tag_list({EXPIRES_TAG: plan.expires_at})
    parameters = {"resourceARN": existing.id, "tags": tags}
    return {"service": "bedrock", "operation": "tag_resource", "parameters": parameters}


def _expiry_time(hours: float) -> str:
    return (datetime.now(timezone.utc) + timedelta(hours=hours)).isoformat(timespec="seconds")


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

    That is the one with the plan's name, or another one of its kind that was updated to the model.
    Raise JobStateConflict where another kind of resource serves the model, ResourceConflict where
    the plan's name is in use for something else.
    """
    model, kind = _served_model(plan), RESOURCE_KINDS[plan.kind]
    servings = list(inventory.list_servings(aws))
    same_name = [s for s in servings if s.kind == kind and s.name == plan.name]
    serving = [s for s in servings if s.model == model]
    existing = next((s for s in same_name if s in serving), None) or next(
        (s for s in serving if s.kind == kind and s.job == _job_of(plan)), None
    )
    if existing is None:
        _raise_if_served_otherwise(plan, [s for s in servings if model in (s.model, s.next_model)])
        for resource in same_name:
            _raise_if_foreign(plan, resource)
        return None
    _raise_if_foreign(plan, existing)
    _raise_if_other_terms(aws, plan, existing)
    return existing


def _job_of(plan: ServingPlan) -> str:
    return from_tag_list(plan.call["parameters"]["tags"])[JOB_TAG]


def _raise_if_served_otherwise(plan: ServingPlan, servings: Sequence[CloudResource]) -> None:
    """Raise JobStateConflict where a resource serves the model, or is being updated to it."""
    for other in servings:
        if other.model != _served_model(plan):
            raise JobStateConflict(
                f"{other.kind} {other.name} is being updated to this model",
                fix=f"`cloudft deploy {_job_of(plan)} --update {other.name}` follows that.",
            )
        kind = RESOURCE_KINDS[plan.kind]
        raise JobStateConflict(
            f"{other.kind} {other.name} serves this model already; the plan creates a {kind}",
            fix=f"`cloudft undeploy {other.job or 'JOB'}` removes it"
            f"{_provisioned_flag_hint(other, kind)}.",
        )


def _provisioned_flag_hint(other: CloudResource, kind: str) -> str:
    if other.kind == kind:
        return ""
    action = "add" if other.kind == RESOURCE_KINDS["provisioned"] else "remove"
    return f"; {action} --provisioned to keep it"


def _raise_if_foreign(plan: ServingPlan, resource: CloudResource) -> None:
    """Raise ResourceConflict where a resource has the plan's name but another model or job."""
    job = _job_of(plan)
    if resource.model != _served_model(plan):
        difference = f"it serves another model ({resource.model})"
        if resource.job not in (None, job):  # it was updated
            raise ResourceConflict(
                f"a {resource.kind} {resource.name} exists, and it serves the model of"
                f" {resource.job}",
                fix=f"`cloudft deploy {job} --update {resource.name}` puts the model of {job}"
                f" behind it, `cloudft undeploy {resource.job}` removes it.",
            )
    elif resource.job != job:
        difference = "it has no tag of this job"
    else:
        return
    raise ResourceConflict(
        f"a {resource.kind} {resource.name} exists, and {difference}",
        fix="remove it with the tool that created it, then deploy again.",
    )


def _raise_if_other_terms(aws: Aws, plan: ServingPlan, resource: CloudResource) -> None:
    """Raise JobStateConflict for throughput with other model units or another commitment."""
    parameters = plan.call["parameters"]
    units, term = parameters.get("modelUnits"), parameters.get("commitmentDuration")
    if units is None:
        return
    response = aws.call(
        f"can't read {resource.name}",
        "bedrock",
        "get_provisioned_model_throughput",
        provisionedModelId=resource.id,
    )
    undeploy = f"or `cloudft undeploy {resource.job or 'JOB'}` first"
    existing = response.get("desiredModelUnits", response["modelUnits"])
    if existing != units:
        raise JobStateConflict(
            f"{resource.kind} {resource.name} serves this model with {existing} model units,"
            f" and --units is {units}",
            fix=f"set --units {existing} to keep it, {undeploy}.",
        )
    committed = response.get("commitmentDuration")
    if committed != term:
        has, flag = committed or "no commitment", term or "not set"
        keep = f"set --commitment {committed}" if committed else "remove --commitment"
        raise JobStateConflict(
            f"{resource.kind} {resource.name} serves this model with {has},"
            f" and --commitment is {flag}",
            fix=f"{keep} to keep it, {undeploy}.",
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
    except QuotaExceeded as error:
        raise serving_prices.quota_error(plan, error) from error
    except ResourceConflict:
        kind, name = RESOURCE_KINDS[plan.kind], plan.name
        resource = _wait_until_listed(aws, lambda one: one.kind == kind and one.name == name)
        if resource is None:
            raise
        _raise_if_foreign(plan, resource)
        _raise_if_other_terms(aws, plan, resource)
        attempts.record_response(name, attempt, resource.id)
        return resource
    arn = str(response[RESPONSE_ARN_KEYS[plan.kind]])
    attempts.record_response(plan.name, attempt, arn)
    with _creation_continues(plan):
        return _wait_until_listed(aws, lambda one: one.id == arn)


@contextlib.contextmanager
def _creation_continues(plan: ServingPlan) -> Iterator[None]:
    """Add to errors that the creation continues, although its progress can't be read."""
    job = _job_of(plan)
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
