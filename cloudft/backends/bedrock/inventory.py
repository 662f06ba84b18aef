"""Everything that stands in an account and Region and may cost, whoever made it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from tenacity import Retrying, retry_if_result, stop_after_delay, wait_exponential

from cloudft import catalogue, cost
from cloudft.aws.client import Aws
from cloudft.aws.tags import EXPIRES
from cloudft.backends.base import Thing
from cloudft.backends.bedrock import in_use, request, states
from cloudft.backends.bedrock.imports import staged
from cloudft.backends.bedrock.output import objects
from cloudft.catalogue import UnitPrices
from cloudft.errors import AwsConflict, AwsDenied, AwsNotFound, UnknownModel

GONE_S = 120.0
"""How long a removal is followed."""
READY = {"Active", "InService"}
REMOVALS = {
    "deployment": ("delete_custom_model_deployment", "customModelDeploymentIdentifier"),
    "provisioned-throughput": ("delete_provisioned_model_throughput", "provisionedModelId"),
    "custom-model": ("delete_custom_model", "modelIdentifier"),
    "imported-model": ("delete_imported_model", "modelIdentifier"),
}
LOOKS = {
    "deployment": ("get_custom_model_deployment", "customModelDeploymentIdentifier"),
    "provisioned-throughput": ("get_provisioned_model_throughput", "provisionedModelId"),
    "custom-model": ("get_custom_model", "modelIdentifier"),
    "imported-model": ("get_imported_model", "modelIdentifier"),
}
Summary = Mapping[str, Any]


def everything(aws: Aws) -> Iterator[Thing]:
    """Servings first, then models, then the data in S3: the order in which they may be removed."""
    models = list(_models(aws))
    yield from servings(aws)
    yield from models
    yield from _imported(aws)
    yield from _data(aws)
    yield from staged.models(aws, {"ExpectedBucketOwner": _account(aws)})


def servings(aws: Aws) -> Iterator[Thing]:
    """Deployments and provisioned throughputs."""
    what, key = "the deployments can't be listed", "modelDeploymentSummaries"
    for summary in aws.pages(what, "bedrock", "list_custom_model_deployments", key):
        arn = summary["customModelDeploymentArn"]
        name, status = summary["customModelDeploymentName"], summary["status"]
        usd = {"perHour": 0.0, "perMonth": 0.0}
        made = summary["createdAt"]
        yield _thing(aws, "deployment", arn, name, status, made, usd, summary["modelArn"])
    what, key = "the provisioned throughputs can't be listed", "provisionedModelSummaries"
    for summary in aws.pages(what, "bedrock", "list_provisioned_model_throughputs", key):
        arn, name = summary["provisionedModelArn"], summary["provisionedModelName"]
        hour = _unit_hour(summary["foundationModelArn"], int(summary["modelUnits"]))
        usd_ = {"perHour": hour, "perMonth": None if hour is None else hour * cost.HOURS_PER_MONTH}
        kind, status = "provisioned-throughput", summary["status"]
        made = summary["creationTime"]
        thing = _thing(aws, kind, arn, name, status, made, usd_, summary["modelArn"])
        yield replace(thing, basis=_source(_known(summary["foundationModelArn"]), hour))


def _source(model: catalogue.Model | None, amount: float | None) -> str:
    """Where a price of the catalogue was read."""
    prices = model.prices if model else None
    return "no price is known" if prices is None or amount is None else str(prices.source)


def _unit_hour(arn: str, units: int) -> float | None:
    model = _known(arn)
    price = model.prices.provisioned_unit_hour if model and model.prices else None
    return None if price is None else price * units


def _known(arn: str) -> catalogue.Model | None:
    try:
        return catalogue.find(arn)
    except UnknownModel:
        return None


def _models(aws: Aws) -> Iterator[Thing]:
    what, key = "the custom models can't be listed", "modelSummaries"
    for summary in aws.pages(what, "bedrock", "list_custom_models", key, isOwned=True):
        model = _known(summary["baseModelArn"])
        month = model.prices.storage_per_month if model and model.prices else None
        hour = None if month is None else month / cost.HOURS_PER_MONTH
        usd = {"perHour": hour, "perMonth": month}
        arn, name = summary["modelArn"], summary["modelName"]
        status = summary.get("modelStatus", "Active")
        thing = _thing(aws, "custom-model", arn, name, status, summary["creationTime"], usd)
        yield replace(thing, basis=_source(model, month))


def _imported(aws: Aws) -> Iterator[Thing]:
    """Idle, an imported model costs its storage alone; its copies cost by use."""
    what, key = "the imported models can't be listed", "modelSummaries"
    for summary in aws.pages(what, "bedrock", "list_imported_models", key):
        arn, name = summary["modelArn"], summary["modelName"]
        try:
            model = aws.call(what, "bedrock", "get_imported_model", modelIdentifier=arn)
        except AwsNotFound:  # removed since it was listed
            continue
        units = model.get("customModelUnits", {})
        price = catalogue.unit_prices(str(units.get("customModelUnitsVersion")))
        month = price.unit_month if price else None
        month = None if month is None else month * int(units["customModelUnitsPerModelCopy"])
        usd = {"perHour": None if month is None else 0.0, "perMonth": month}
        thing = _thing(aws, "imported-model", arn, name, "Active", summary["creationTime"], usd)
        yield replace(thing, basis=_copies(units, price))


def _copies(units: Mapping[str, Any], price: UnitPrices | None) -> str:
    """How an imported model is billed: the units of a copy, the windows, and where that stands."""
    count = units.get("customModelUnitsPerModelCopy", "an unknown number of")
    version = units.get("customModelUnitsVersion", "")
    minute = price.unit_minute if price else None
    told = "no price is known" if minute is None else f"{minute:g} USD a unit and minute"
    told += f", {price.source}" if price and price.source else ""
    return (
        f"a copy that answers: {count} x custom model unit {version}"
        f" in windows of {cost.WINDOW_MINUTES} minutes, {told}"
        f" ({catalogue.import_rules().billing_source})"
    )


def _data(aws: Aws) -> Iterator[Thing]:
    """What cloudft staged for jobs that have ended, in buckets of this account.

    The folders of the jobs themselves stay: they are the record of what was made.
    """
    account = _account(aws)
    what, key = "the jobs can't be listed", "modelCustomizationJobSummaries"
    operation = "list_model_customization_jobs"
    used: set[str] = set()
    ended: dict[str, tuple[str, Any]] = {}
    for summary in aws.pages(what, "bedrock", operation, key):
        arn, name = summary["jobArn"], summary["jobName"]
        if not request.NAMES.fullmatch(name) or _tags(aws, arn, name).get(request.TAG_JOB) != name:
            continue
        job = aws.call(
            "a job can't be read", "bedrock", "get_model_customization_job", jobIdentifier=arn
        )
        files = [job["trainingDataConfig"].get("s3Uri")]
        files += [v["s3Uri"] for v in job["validationDataConfig"].get("validators", ())]
        ours = {uri for uri in files if uri and request.STAGED.fullmatch(uri)}
        if job["status"] in ("InProgress", "Stopping"):
            used |= ours
        else:
            ended |= dict.fromkeys(ours, (job["jobName"], job["creationTime"]))
    for uri, (name, made) in ended.items():
        bucket, _, path = uri.removeprefix("s3://").partition("/")
        where = {"Bucket": bucket, "ExpectedBucketOwner": account}
        if uri in used or not _there(aws, where, path):
            continue
        usd = {"perHour": 0.0, "perMonth": None}
        yield Thing(
            "data", uri, path.rpartition("/")[2], "staged", str(states.iso(made)), usd, name
        )


def _account(aws: Aws) -> str:
    identity = aws.call("the identity can't be looked up", "sts", "get_caller_identity")
    return str(identity["Account"])


def _there(aws: Aws, where: Mapping[str, str], path: str) -> bool:
    try:
        return any(True for _ in objects(aws, where, path))
    except (AwsNotFound, AwsDenied):  # no such bucket, or another account's: not ours to remove
        return False


def _tags(aws: Aws, arn: str, name: str) -> dict[str, str]:
    what = f"the tags of {name} can't be read"
    try:
        answer = aws.call(what, "bedrock", "list_tags_for_resource", resourceARN=arn)
    except AwsNotFound:  # removed since it was listed
        return {}
    return {tag["key"]: tag["value"] for tag in answer["tags"]}


def _thing(
    aws: Aws,
    kind: str,
    arn: str,
    name: str,
    status: str,
    made: Any,
    usd: Mapping[str, float | None],
    model: str | None = None,
) -> Thing:
    tags = _tags(aws, arn, name)
    word = "ready" if status in READY else status
    return Thing(
        kind,
        arn,
        name,
        word,
        str(states.iso(made)),
        usd,
        tags.get(request.TAG_JOB),
        model,
        tags.get(EXPIRES),
    )


def remove(aws: Aws, thing: Thing) -> None:
    """Remove one thing and wait until it is gone. Raises AwsConflict for one in use."""
    if thing.kind == "data":
        bucket, _, key = thing.id.removeprefix("s3://").partition("/")
        where = {"Bucket": bucket, "Key": key, "ExpectedBucketOwner": _account(aws)}
        aws.call(f"{thing.id} can't be removed", "s3", "delete_object", **where)
        return
    operation, parameter = REMOVALS[thing.kind]
    try:
        what = f"{thing.kind} {thing.name} can't be removed"
        aws.call(what, "bedrock", operation, **{parameter: thing.id})
    except AwsNotFound:
        return
    except AwsConflict as error:
        raise in_use.explained(aws, thing, servings(aws), error) from error
    retrying = Retrying(
        retry=retry_if_result(bool),
        stop=stop_after_delay(GONE_S),
        wait=wait_exponential(multiplier=0.2, max=10),
        retry_error_callback=lambda _: None,
    )
    retrying(_is_there, aws, thing)


def _is_there(aws: Aws, thing: Thing) -> bool:
    operation, parameter = LOOKS[thing.kind]
    try:
        aws.call(f"{thing.name} can't be looked at", "bedrock", operation, **{parameter: thing.id})
    except AwsNotFound:
        return False
    return True
