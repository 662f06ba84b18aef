"""Everything that stands in an account and Region and may cost, whoever made it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from tenacity import Retrying, retry_if_result, stop_after_delay, wait_exponential

from cloudft import catalogue
from cloudft.aws.client import Aws
from cloudft.aws.tags import EXPIRES_TAG
from cloudft.backends.aws_base.backend import is_owned_by_other_account
from cloudft.backends.bedrock import removal_conflicts, request, states
from cloudft.backends.bedrock.model_import import staged_models
from cloudft.backends.bedrock.output import list_objects
from cloudft.backends.partial_listing import ListingBuilder
from cloudft.backends.resources import IN_USE, IN_USE_PART_SUFFIX, CloudResource
from cloudft.catalogue import UnitPrices, cost
from cloudft.errors import (
    CloudRefused,
    CloudUnreachable,
    PermissionDenied,
    ResourceConflict,
    ResourceNotFound,
    UnknownModel,
)
from cloudft.types import Listing

DELETE_TIMEOUT_S = 120.0
"""How long a removal is followed."""
READY_STATUSES = {"Active", "InService"}
DELETE_OPERATIONS = {
    "deployment": ("delete_custom_model_deployment", "customModelDeploymentIdentifier"),
    "provisioned-throughput": ("delete_provisioned_model_throughput", "provisionedModelId"),
    "custom-model": ("delete_custom_model", "modelIdentifier"),
    "imported-model": ("delete_imported_model", "modelIdentifier"),
}
GET_OPERATIONS = {
    "deployment": ("get_custom_model_deployment", "customModelDeploymentIdentifier"),
    "provisioned-throughput": ("get_provisioned_model_throughput", "provisionedModelId"),
    "custom-model": ("get_custom_model", "modelIdentifier"),
    "imported-model": ("get_imported_model", "modelIdentifier"),
}
Summary = Mapping[str, Any]


class _TagReader:
    """Reads tags. A thing whose tags can't be read is listed without them, and that is said once.

    After an outage no more are read: each would wait for its deadline.
    """

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self._unread: list[str] = []
        self._why: CloudRefused | CloudUnreachable | None = None

    def __call__(self, arn: str, name: str) -> dict[str, str] | None:
        """Return a thing's tags; None when they can't be read."""
        if not isinstance(self._why, CloudUnreachable):
            try:
                return _get_tags(self._aws, arn, name)
            except (CloudRefused, CloudUnreachable) as error:
                self._why = error
        self._unread.append(name)
        return None

    def report_unread(self, gathering: ListingBuilder) -> None:
        """Say what could not be read."""
        if self._why is not None:
            few = ", ".join(self._unread[:5])
            what = f"bedrock: the tags of {len(self._unread)} things ({few})"
            gathering.add_unavailable(what, self._why)


ReadTags = Callable[[str, str], "dict[str, str] | None"]


def list_resources(aws: Aws) -> Listing[CloudResource]:
    """Servings first, then models, then the data in S3: the order in which they may be removed."""
    gathering, tags = ListingBuilder(), _TagReader(aws)
    parts: dict[str, Callable[[], Iterator[CloudResource]]] = {
        "bedrock: deployments": lambda: _list_deployments(aws, tags),
        "bedrock: provisioned throughputs": lambda: _list_throughputs(aws, tags),
        "bedrock: custom models": lambda: _list_custom_models(aws, tags),
        "bedrock: imported models": lambda: _list_imported_models(aws, tags, gathering),
        f"bedrock: jobs {IN_USE_PART_SUFFIX}": lambda: _list_staged_data(aws, gathering),
        f"bedrock: imports {IN_USE_PART_SUFFIX}": lambda: staged_models.list_staged_models(
            aws, {"ExpectedBucketOwner": _account_id(aws)}
        ),
    }
    found = [thing for what, items in parts.items() for thing in gathering.collect(what, items)]
    tags.report_unread(gathering)
    return gathering.build(found)


def list_servings(aws: Aws) -> Iterator[CloudResource]:
    """Deployments and provisioned throughputs. Raises AwsRefused and AwsUnreachable."""

    def tags(arn: str, name: str) -> dict[str, str]:
        return _get_tags(aws, arn, name)

    yield from _list_deployments(aws, tags)
    yield from _list_throughputs(aws, tags)


def _list_deployments(aws: Aws, tags: ReadTags) -> Iterator[CloudResource]:
    what, key = "the deployments can't be listed", "modelDeploymentSummaries"
    for summary in aws.paginate(what, "bedrock", "list_custom_model_deployments", key):
        arn = summary["customModelDeploymentArn"]
        name, status = summary["customModelDeploymentName"], summary["status"]
        usd = {"perHour": 0.0, "perMonth": 0.0}
        made = summary["createdAt"]
        yield _resource(tags, "deployment", arn, name, status, made, usd, summary["modelArn"])


def _list_throughputs(aws: Aws, tags: ReadTags) -> Iterator[CloudResource]:
    what, key = "the provisioned throughputs can't be listed", "provisionedModelSummaries"
    for summary in aws.paginate(what, "bedrock", "list_provisioned_model_throughputs", key):
        arn, name = summary["provisionedModelArn"], summary["provisionedModelName"]
        hour = _throughput_usd_per_hour(summary["foundationModelArn"], int(summary["modelUnits"]))
        usd_ = {"perHour": hour, "perMonth": None if hour is None else hour * cost.HOURS_PER_MONTH}
        kind, status = "provisioned-throughput", summary["status"]
        made = summary["creationTime"]
        thing = _resource(tags, kind, arn, name, status, made, usd_, summary["modelArn"])
        yield replace(
            thing, basis=_price_source(_catalogue_model(summary["foundationModelArn"]), hour)
        )


def _price_source(model: catalogue.Model | None, amount: float | None) -> str:
    """Where a price of the catalogue was read."""
    prices = model.prices if model else None
    return "no price is known" if prices is None or amount is None else str(prices.source)


def _throughput_usd_per_hour(arn: str, units: int) -> float | None:
    model = _catalogue_model(arn)
    price = model.prices.provisioned_unit_hour if model and model.prices else None
    return None if price is None else price * units


def _catalogue_model(arn: str) -> catalogue.Model | None:
    try:
        return catalogue.find_model(arn)
    except UnknownModel:
        return None


def _list_custom_models(aws: Aws, tags: ReadTags) -> Iterator[CloudResource]:
    what, key = "the custom models can't be listed", "modelSummaries"
    for summary in aws.paginate(what, "bedrock", "list_custom_models", key, isOwned=True):
        model = _catalogue_model(summary["baseModelArn"])
        month = model.prices.storage_per_month if model and model.prices else None
        hour = None if month is None else month / cost.HOURS_PER_MONTH
        usd = {"perHour": hour, "perMonth": month}
        arn, name = summary["modelArn"], summary["modelName"]
        status = summary.get("modelStatus", "Active")
        thing = _resource(tags, "custom-model", arn, name, status, summary["creationTime"], usd)
        yield replace(thing, basis=_price_source(model, month))


def _list_imported_models(
    aws: Aws, tags: ReadTags, gathering: ListingBuilder
) -> Iterator[CloudResource]:
    """Idle, an imported model costs its storage alone; its copies cost by use."""
    what, key = "the imported models can't be listed", "modelSummaries"
    for summary in aws.paginate(what, "bedrock", "list_imported_models", key):
        arn, name = summary["modelArn"], summary["modelName"]
        model: Mapping[str, Any] = {}
        try:
            model = aws.call(what, "bedrock", "get_imported_model", modelIdentifier=arn)
        except ResourceNotFound:  # removed since it was listed
            continue
        except (CloudRefused, CloudUnreachable) as error:  # it is there; what it costs is unknown
            gathering.add_unavailable(f"bedrock: the imported model {name}", error)
        units = model.get("customModelUnits", {})
        price = catalogue.get_unit_prices(str(units.get("customModelUnitsVersion")))
        month = price.unit_month if price else None
        month = None if month is None else month * int(units["customModelUnitsPerModelCopy"])
        usd = {"perHour": None if month is None else 0.0, "perMonth": month}
        thing = _resource(tags, "imported-model", arn, name, "Active", summary["creationTime"], usd)
        yield replace(thing, basis=_copy_price(units, price))


def _copy_price(units: Mapping[str, Any], price: UnitPrices | None) -> str:
    """How an imported model is billed: the units of a copy, the windows, and where that stands."""
    count = units.get("customModelUnitsPerModelCopy", "an unknown number of")
    version = units.get("customModelUnitsVersion", "")
    minute = price.unit_minute if price else None
    told = "no price is known" if minute is None else f"{minute:g} USD a unit and minute"
    told += f", {price.source}" if price and price.source else ""
    return (
        f"a copy that answers: {count} x custom model unit {version}"
        f" in windows of {cost.WINDOW_MINUTES} minutes, {told}"
        f" ({catalogue.load_import_rules().billing_source})"
    )


def _list_staged_data(aws: Aws, gathering: ListingBuilder) -> Iterator[CloudResource]:
    """What cloudft staged for jobs that have ended, in buckets of this account.

    The folders of the jobs themselves stay: they are the record of what was made. Whatever a
    running job reads comes as IN_USE, whoever made that job. Raises where a job can't be read: what
    is in use is not known then.
    """
    account = _account_id(aws)
    what, key = "the jobs can't be listed", "modelCustomizationJobSummaries"
    operation = "list_model_customization_jobs"
    used: dict[str, tuple[str, Any]] = {}
    ended: dict[str, list[tuple[str, Any]]] = {}
    for summary in aws.paginate(what, "bedrock", operation, key):
        arn, name = summary["jobArn"], summary["jobName"]
        running = summary["status"] in ("InProgress", "Stopping")
        if not running and not _has_cloudft_tag(aws, arn, name):
            continue
        job = aws.call(
            "a job can't be read", "bedrock", "get_model_customization_job", jobIdentifier=arn
        )
        files = [job["trainingDataConfig"].get("s3Uri")]
        files += [v["s3Uri"] for v in job["validationDataConfig"].get("validators", ())]
        staged_files = {uri for uri in files if uri and request.STAGED_URI.fullmatch(uri)}
        if running:
            used |= dict.fromkeys(staged_files, (job["jobName"], job["creationTime"]))
        for uri in () if running else staged_files:
            ended.setdefault(uri, []).append((job["jobName"], job["creationTime"]))
    for uri, (name, made) in used.items():
        usd = {"perHour": 0.0, "perMonth": None}
        yield CloudResource(
            "data", uri, uri.rpartition("/")[2], IN_USE, str(states.iso_format(made)), usd, name
        )
    for uri, jobs in ended.items():
        if uri not in used:
            item = functools.partial(_staged_file, aws, account, uri, jobs)
            yield from gathering.collect(f"bedrock: {uri}", item)


def _has_cloudft_tag(aws: Aws, arn: str, name: str) -> bool:
    """Return whether a job bears our tag, with its own name."""
    return bool(
        request.JOB_NAME.fullmatch(name) and _get_tags(aws, arn, name).get(request.TAG_JOB) == name
    )


def _staged_file(
    aws: Aws, account: str, uri: str, jobs: list[tuple[str, Any]]
) -> Iterator[CloudResource]:
    """A staged file of those jobs, the newest first, if it is there."""
    bucket, _, path = uri.removeprefix("s3://").partition("/")
    if not _object_exists(aws, {"Bucket": bucket, "ExpectedBucketOwner": account}, path):
        return
    (name, made), *others = jobs
    usd = {"perHour": 0.0, "perMonth": None}
    also = tuple(other for other, _ in others)
    made = str(states.iso_format(made))
    yield CloudResource("data", uri, path.rpartition("/")[2], "staged", made, usd, name, also=also)


def _account_id(aws: Aws) -> str:
    identity = aws.call("the identity can't be looked up", "sts", "get_caller_identity")
    return str(identity["Account"])


def _object_exists(aws: Aws, where: Mapping[str, str], path: str) -> bool:
    """Return whether an object is there, in a bucket of this account."""
    try:
        return any(True for _ in list_objects(aws, where, path))
    except ResourceNotFound:
        return False
    except PermissionDenied:
        if is_owned_by_other_account(aws, where["Bucket"]):
            return False
        raise


def _get_tags(aws: Aws, arn: str, name: str) -> dict[str, str]:
    what = f"the tags of {name} can't be read"
    try:
        answer = aws.call(what, "bedrock", "list_tags_for_resource", resourceARN=arn)
    except ResourceNotFound:  # removed since it was listed
        return {}
    return {tag["key"]: tag["value"] for tag in answer["tags"]}


def _resource(
    read: ReadTags,
    kind: str,
    arn: str,
    name: str,
    status: str,
    made: Any,
    usd: Mapping[str, float | None],
    model: str | None = None,
) -> CloudResource:
    tags = read(arn, name)
    told = tags or {}
    word = "ready" if status in READY_STATUSES else status
    return CloudResource(
        kind,
        arn,
        name,
        word,
        str(states.iso_format(made)),
        usd,
        told.get(request.TAG_JOB),
        model,
        told.get(EXPIRES_TAG),
        job_known=tags is not None,
    )


def delete_resource(aws: Aws, resource: CloudResource) -> None:
    """Remove one thing and wait until it is gone. Raises AwsConflict for one in use."""
    if resource.kind == "data":
        bucket, _, key = resource.id.removeprefix("s3://").partition("/")
        where = {"Bucket": bucket, "Key": key, "ExpectedBucketOwner": _account_id(aws)}
        aws.call(f"{resource.id} can't be removed", "s3", "delete_object", **where)
        return
    operation, parameter = DELETE_OPERATIONS[resource.kind]
    try:
        what = f"{resource.kind} {resource.name} can't be removed"
        aws.call(what, "bedrock", operation, **{parameter: resource.id})
    except ResourceNotFound:
        return
    except ResourceConflict as error:
        raise removal_conflicts.explain_conflict(
            aws, resource, list_servings(aws), error
        ) from error
    retrying = Retrying(
        retry=retry_if_result(bool),
        stop=stop_after_delay(DELETE_TIMEOUT_S),
        wait=wait_exponential(multiplier=0.2, max=10),
        retry_error_callback=lambda _: None,
    )
    retrying(_resource_exists, aws, resource)


def _resource_exists(aws: Aws, thing: CloudResource) -> bool:
    operation, parameter = GET_OPERATIONS[thing.kind]
    try:
        aws.call(f"{thing.name} can't be looked at", "bedrock", operation, **{parameter: thing.id})
    except ResourceNotFound:
        return False
    return True
