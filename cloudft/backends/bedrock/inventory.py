"""List every billable Bedrock resource in an account and Region, not only cloudft's own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple, cast

from tenacity import Retrying, retry_if_result, stop_after_delay, wait_exponential

from cloudft import catalogue
from cloudft.aws.arn import parse_arn
from cloudft.aws.client import Aws
from cloudft.aws.s3 import bucket_parameters, list_objects, split_s3_uri
from cloudft.aws.tags import EXPIRES_TAG
from cloudft.backends.aws_base.backend import is_owned_by_other_account
from cloudft.backends.bedrock import (
    removal_conflicts,
    request,
    serving_prices,
    serving_state,
    states,
)
from cloudft.backends.bedrock.account_helpers import get_tags
from cloudft.backends.bedrock.api_shapes import CustomizationJob, CustomModelUnits, ImportedModel
from cloudft.backends.bedrock.model_import import staged_models
from cloudft.backends.partial_listing import ListingBuilder
from cloudft.backends.resources import IN_USE, IN_USE_PART_SUFFIX, CloudResource
from cloudft.catalogue import Prices, UnitPrices, cost
from cloudft.catalogue.prices import PriceName
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
"""How long a deletion is followed."""
READY_STATUSES = {"Active", "InService"}
DELETE_OPERATIONS = {
    "deployment": ("delete_custom_model_deployment", "customModelDeploymentIdentifier"),
    "provisioned-throughput": ("delete_provisioned_model_throughput", "provisionedModelId"),
    "custom-model": ("delete_custom_model", "modelIdentifier"),
    "imported-model": ("delete_imported_model", "modelIdentifier"),
}
"""Operation that deletes a resource of each kind, and its parameter."""
GET_OPERATIONS = {
    **serving_state.GET_OPERATIONS,
    "custom-model": ("get_custom_model", "modelIdentifier"),
    "imported-model": ("get_imported_model", "modelIdentifier"),
}
"""Operation that reads a resource of each kind, and its parameter."""
Usd = Mapping[str, "float | None"]
ReadTags = Callable[[str, str], "dict[str, str] | None"]
"""Returns the tags of a resource by ARN and name; None when they can't be read."""


class _TagReader:
    """Reads tags. Resources whose tags can't be read are listed without them, and reported once.

    After an outage no more are read: each call would wait for its deadline.
    """

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self._unread: list[str] = []
        self._error: CloudRefused | CloudUnreachable | None = None

    def __call__(self, arn: str, name: str) -> dict[str, str] | None:
        """Return a resource's tags; None when they can't be read."""
        if not isinstance(self._error, CloudUnreachable):
            try:
                return _get_tags(self._aws, arn, name)
            except (CloudRefused, CloudUnreachable) as error:
                self._error = error
        self._unread.append(name)
        return None

    def report_unread(self, listing: ListingBuilder) -> None:
        """Add the tags that could not be read to the listing's unavailable parts."""
        if self._error is not None:
            few = ", ".join(self._unread[:5])
            what = f"bedrock: the tags of {len(self._unread)} resources ({few})"
            listing.add_unavailable(what, self._error)


def list_resources(aws: Aws) -> Listing[CloudResource]:
    """Return deployments first, then models, then data in S3: the order in which to remove them."""
    listing, read_tags = ListingBuilder(), _TagReader(aws)
    parts: dict[str, Callable[[], Iterator[CloudResource]]] = {
        "bedrock: deployments": lambda: _list_deployments(aws, read_tags),
        "bedrock: provisioned throughputs": lambda: _list_throughputs(aws, read_tags),
        "bedrock: custom models": lambda: _list_custom_models(aws, read_tags),
        "bedrock: imported models": lambda: _list_imported_models(aws, read_tags, listing),
        "bedrock: evaluation jobs": lambda: _list_evaluation_jobs(aws, read_tags),
        f"bedrock: jobs {IN_USE_PART_SUFFIX}": lambda: _list_staged_data(aws, listing),
        f"bedrock: imports {IN_USE_PART_SUFFIX}": lambda: staged_models.list_staged_models(
            aws, _account_id(aws)
        ),
    }
    resources = [
        resource for what, items in parts.items() for resource in listing.collect(what, items)
    ]
    read_tags.report_unread(listing)
    return listing.build(resources)


def list_servings(aws: Aws) -> Iterator[CloudResource]:
    """Yield deployments and provisioned throughputs. Raise CloudRefused and CloudUnreachable."""

    def read_tags(arn: str, name: str) -> dict[str, str]:
        return _get_tags(aws, arn, name)

    yield from _list_deployments(aws, read_tags)
    yield from _list_throughputs(aws, read_tags)


def _list_deployments(aws: Aws, read_tags: ReadTags) -> Iterator[CloudResource]:
    failure, key = "the deployments can't be listed", "modelDeploymentSummaries"
    for summary in aws.paginate(failure, "bedrock", "list_custom_model_deployments", key):
        yield _with_tags(
            read_tags,
            CloudResource(
                kind="deployment",
                id=summary["customModelDeploymentArn"],
                name=summary["customModelDeploymentName"],
                status=_status(summary["status"]),
                created_at=str(states.iso_format(summary["createdAt"])),
                usd={"perHour": 0.0, "perMonth": 0.0},
                model=summary["modelArn"],
            ),
        )


def _list_throughputs(aws: Aws, read_tags: ReadTags) -> Iterator[CloudResource]:
    failure, key = "the provisioned throughputs can't be listed", "provisionedModelSummaries"
    for summary in aws.paginate(failure, "bedrock", "list_provisioned_model_throughputs", key):
        prices = _catalogue_prices(summary["foundationModelArn"], summary["provisionedModelArn"])
        commitment = summary.get("commitmentDuration")
        ends = summary.get("commitmentExpirationTime")
        units = int(summary["modelUnits"])
        usd = serving_prices.usd_of_serving(prices, "provisioned", units, commitment)
        yield _with_tags(
            read_tags,
            CloudResource(
                kind="provisioned-throughput",
                id=summary["provisionedModelArn"],
                name=summary["provisionedModelName"],
                status=_status(summary["status"]),
                created_at=str(states.iso_format(summary["creationTime"])),
                usd=usd,
                model=summary["modelArn"],
                basis=_price_source(prices, serving_prices.unit_hour_name(commitment)),
                commitment=commitment,
                committed_until=states.iso_format(ends) if ends else None,
            ),
        )


def _status(status: str) -> str:
    return "ready" if status in READY_STATUSES else status


def _price_source(prices: Prices | None, name: PriceName) -> str:
    """Return the source of a catalogue price."""
    source = prices.source_of(name) if prices else None
    return cost.NO_PRICE_KNOWN if source is None else str(source)


def _catalogue_prices(base_model_arn: str, arn: str) -> Prices | None:
    """Return the prices of a base model in the Region of a resource."""
    try:
        model = catalogue.find_model(base_model_arn)
    except UnknownModel:
        return None
    return model.prices_in(parse_arn(arn).region)


def _list_custom_models(aws: Aws, read_tags: ReadTags) -> Iterator[CloudResource]:
    failure, key = "the custom models can't be listed", "modelSummaries"
    for summary in aws.paginate(failure, "bedrock", "list_custom_models", key, isOwned=True):
        prices = _catalogue_prices(summary["baseModelArn"], summary["modelArn"])
        month = prices.usd("storage_per_month") if prices else None
        hour = None if month is None else month / cost.HOURS_PER_MONTH
        yield _with_tags(
            read_tags,
            CloudResource(
                kind="custom-model",
                id=summary["modelArn"],
                name=summary["modelName"],
                status=_status(summary.get("modelStatus", "Active")),
                created_at=str(states.iso_format(summary["creationTime"])),
                usd={"perHour": hour, "perMonth": month},
                basis=_price_source(prices, "storage_per_month"),
            ),
        )


def _list_imported_models(
    aws: Aws, read_tags: ReadTags, listing: ListingBuilder
) -> Iterator[CloudResource]:
    """Yield imported models: an idle one costs only its storage; its copies cost by use."""
    failure, key = "the imported models can't be listed", "modelSummaries"
    for summary in aws.paginate(failure, "bedrock", "list_imported_models", key):
        arn, name = summary["modelArn"], summary["modelName"]
        model: ImportedModel = {}
        try:
            response = aws.call(failure, "bedrock", "get_imported_model", modelIdentifier=arn)
            model = cast("ImportedModel", response)
        except ResourceNotFound:  # removed since it was listed
            continue
        except (CloudRefused, CloudUnreachable) as error:  # it exists; its price is unknown
            listing.add_unavailable(f"bedrock: the imported model {name}", error)
        units = model.get("customModelUnits", {})
        version, region = str(units.get("customModelUnitsVersion")), parse_arn(arn).region
        price = catalogue.get_unit_prices(version, region)
        month = price.unit_month if price else None
        month = None if month is None else month * int(units["customModelUnitsPerModelCopy"])
        yield _with_tags(
            read_tags,
            CloudResource(
                kind="imported-model",
                id=arn,
                name=name,
                status="ready",
                created_at=str(states.iso_format(summary["creationTime"])),
                usd={"perHour": None if month is None else 0.0, "perMonth": month},
                basis=_copy_price(units, price),
            ),
        )


def _copy_price(units: CustomModelUnits, price: UnitPrices | None) -> str:
    """Return how an imported model is billed: units of a copy, windows, and the source."""
    count = units.get("customModelUnitsPerModelCopy", "an unknown number of")
    version = units.get("customModelUnitsVersion", "")
    minute = price.unit_minute if price else None
    amount = cost.NO_PRICE_KNOWN if minute is None else f"{minute:g} USD a unit and minute"
    amount += f", {price.source}" if price and price.source else ""
    return (
        f"a copy that answers: {count} x custom model unit {version}"
        f" in windows of {cost.WINDOW_MINUTES} minutes, {amount}"
        f" ({catalogue.load_import_rules().billing_source})"
    )


def _list_evaluation_jobs(aws: Aws, read_tags: ReadTags) -> Iterator[CloudResource]:
    """Yield the evaluation jobs that run: they invoke models until they end."""
    failure, key = "the evaluation jobs can't be listed", "jobSummaries"
    jobs = aws.paginate(failure, "bedrock", "list_evaluation_jobs", key, statusEquals="InProgress")
    for summary in jobs:
        yield _with_tags(
            read_tags,
            CloudResource(
                kind="evaluation-job",
                id=summary["jobArn"],
                name=summary["jobName"],
                status=summary["status"],
                created_at=str(states.iso_format(summary["creationTime"])),
                usd={"perHour": None, "perMonth": 0.0},
                basis="the tokens of the models that it invokes, until it ends",
            ),
        )


class _Reader(NamedTuple):
    """A job that reads a staged file."""

    job_name: str
    created: datetime


def _list_staged_data(aws: Aws, listing: ListingBuilder) -> Iterator[CloudResource]:
    """Yield what cloudft staged for jobs that have ended, in buckets of this account.

    The jobs' own folders stay: they are the record of what was created. What a running job reads is
    yielded as IN_USE, even if another tool created the job. Raise where a job can't be read: then
    it is not known what is in use.
    """
    account = _account_id(aws)
    failure, key = "the jobs can't be listed", "modelCustomizationJobSummaries"
    operation = "list_model_customization_jobs"
    in_use: dict[str, _Reader] = {}
    ended: dict[str, list[_Reader]] = {}
    for summary in aws.paginate(failure, "bedrock", operation, key):
        arn, name = summary["jobArn"], summary["jobName"]
        is_running = summary["status"] in ("InProgress", "Stopping")
        if not is_running and not _has_cloudft_tag(aws, arn, name):
            continue
        response = aws.call(
            "can't read a job", "bedrock", "get_model_customization_job", jobIdentifier=arn
        )
        job = cast("CustomizationJob", response)
        reader = _Reader(job["jobName"], job["creationTime"])
        for uri in _staged_files(job):
            if is_running:
                in_use[uri] = reader
            else:
                ended.setdefault(uri, []).append(reader)
    # In use comes first: the caller must not offer for removal what one of its later parts reads.
    for uri, reader in in_use.items():
        yield _data_resource(uri, IN_USE, [reader])
    for uri, readers in ended.items():
        if uri not in in_use:
            item = functools.partial(_staged_file, aws, account, uri, readers)
            yield from listing.collect(f"bedrock: {uri}", item)


def _staged_files(job: CustomizationJob) -> set[str]:
    """Return the URIs of a job's data files that have the form of cloudft's."""
    uris = [job["trainingDataConfig"].get("s3Uri")]
    uris += [v["s3Uri"] for v in job.get("validationDataConfig", {}).get("validators", ())]
    return {uri for uri in uris if uri and request.STAGED_URI.fullmatch(uri)}


def _has_cloudft_tag(aws: Aws, arn: str, name: str) -> bool:
    """Return whether a job has cloudft's tag with its own name."""
    return bool(
        request.JOB_NAME.fullmatch(name) and _get_tags(aws, arn, name).get(request.TAG_JOB) == name
    )


def _staged_file(
    aws: Aws, account: str, uri: str, readers: list[_Reader]
) -> Iterator[CloudResource]:
    """Yield a staged file of those jobs, the newest first, if it exists."""
    bucket, key = split_s3_uri(uri)
    if _object_exists(aws, bucket, account, key):
        yield _data_resource(uri, "staged", readers)


def _data_resource(uri: str, status: str, readers: list[_Reader]) -> CloudResource:
    reader, *others = readers
    return CloudResource(
        kind="data",
        id=uri,
        name=uri.rpartition("/")[2],
        status=status,
        created_at=str(states.iso_format(reader.created)),
        usd={"perHour": 0.0, "perMonth": None},
        job=reader.job_name,
        also=tuple(other.job_name for other in others),
    )


def _account_id(aws: Aws) -> str:
    identity = aws.call("the identity can't be read", "sts", "get_caller_identity")
    return str(identity["Account"])


def _object_exists(aws: Aws, bucket: str, account: str, key: str) -> bool:
    """Return whether an object exists in a bucket of this account."""
    try:
        return any(True for _ in list_objects(aws, bucket_parameters(bucket, account), key))
    except ResourceNotFound:
        return False
    except PermissionDenied:
        if is_owned_by_other_account(aws, bucket):
            return False
        raise


def _get_tags(aws: Aws, arn: str, name: str) -> dict[str, str]:
    try:
        return get_tags(aws, arn, name)
    except ResourceNotFound:  # removed since it was listed
        return {}


def _with_tags(read_tags: ReadTags, resource: CloudResource) -> CloudResource:
    """Return the resource with its job and time to live, which are in its tags."""
    tags = read_tags(resource.id, resource.name)
    known = tags or {}
    before, after = serving_state.models_before_and_after(known, resource.model)
    return replace(
        resource,
        job=serving_state.job_served(known, resource.model),
        expires_at=known.get(EXPIRES_TAG),
        job_known=tags is not None,
        previous_model=before,
        next_model=after,
    )


def delete_resource(aws: Aws, resource: CloudResource) -> None:
    """Delete a resource and wait until it is gone. Raise ResourceConflict for one in use."""
    if resource.kind == "data":
        bucket, key = split_s3_uri(resource.id)
        failure = f"{resource.id} can't be deleted"
        parameters = bucket_parameters(bucket, _account_id(aws))
        aws.call(failure, "s3", "delete_object", Key=key, **parameters)
        return
    operation, parameter = DELETE_OPERATIONS[resource.kind]
    try:
        failure = f"{resource.kind} {resource.name} can't be deleted"
        aws.call(failure, "bedrock", operation, **{parameter: resource.id})
    except ResourceNotFound:
        return
    except ResourceConflict as error:
        servings = list_servings(aws)
        raise removal_conflicts.explain_conflict(aws, resource, servings, error) from error
    retrying = Retrying(
        retry=retry_if_result(bool),
        stop=stop_after_delay(DELETE_TIMEOUT_S),
        wait=wait_exponential(multiplier=0.2, max=10),
        retry_error_callback=lambda _: None,
    )
    retrying(_resource_exists, aws, resource)


def _resource_exists(aws: Aws, resource: CloudResource) -> bool:
    operation, parameter = GET_OPERATIONS[resource.kind]
    try:
        aws.call(f"can't read {resource.name}", "bedrock", operation, **{parameter: resource.id})
    except ResourceNotFound:
        return False
    return True
