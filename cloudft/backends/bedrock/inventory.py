"""Everything that stands in an account and Region and may cost, whoever made it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from tenacity import Retrying, retry_if_result, stop_after_delay, wait_exponential

from cloudft import catalogue, cost
from cloudft.aws.client import Aws
from cloudft.aws.tags import EXPIRES
from cloudft.backends.base import DATA_PART, IN_USE, Thing
from cloudft.backends.bedrock import in_use, request, states
from cloudft.backends.bedrock.imports import staged
from cloudft.backends.bedrock.output import objects
from cloudft.backends.on_aws import is_bucket_of_another
from cloudft.catalogue import UnitPrices
from cloudft.errors import (
    AwsConflict,
    AwsDenied,
    AwsNotFound,
    AwsRefused,
    AwsUnreachable,
    UnknownModel,
)
from cloudft.listing import Gathering
from cloudft.types import Listing

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


class _Tags:
    """Reads tags. A thing whose tags can't be read is listed without them, and that is said once.

    After an outage no more are read: each would wait for its deadline.
    """

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self._unread: list[str] = []
        self._why: AwsRefused | AwsUnreachable | None = None

    def __call__(self, arn: str, name: str) -> dict[str, str] | None:
        """Return a thing's tags; None when they can't be read."""
        if not isinstance(self._why, AwsUnreachable):
            try:
                return _tags(self._aws, arn, name)
            except (AwsRefused, AwsUnreachable) as error:
                self._why = error
        self._unread.append(name)
        return None

    def report(self, gathering: Gathering) -> None:
        """Say what could not be read."""
        if self._why is not None:
            few = ", ".join(self._unread[:5])
            what = f"bedrock: the tags of {len(self._unread)} things ({few})"
            gathering.miss(what, self._why)


Read = Callable[[str, str], "dict[str, str] | None"]


def everything(aws: Aws) -> Listing[Thing]:
    """Servings first, then models, then the data in S3: the order in which they may be removed."""
    gathering, tags = Gathering(), _Tags(aws)
    parts: dict[str, Callable[[], Iterator[Thing]]] = {
        "bedrock: deployments": lambda: _deployments(aws, tags),
        "bedrock: provisioned throughputs": lambda: _throughputs(aws, tags),
        "bedrock: custom models": lambda: _models(aws, tags),
        "bedrock: imported models": lambda: _imported(aws, tags, gathering),
        f"bedrock: jobs {DATA_PART}": lambda: _data(aws, gathering),
        f"bedrock: imports {DATA_PART}": lambda: staged.models(
            aws, {"ExpectedBucketOwner": _account(aws)}
        ),
    }
    found = [thing for what, items in parts.items() for thing in gathering.part(what, items)]
    tags.report(gathering)
    return gathering.listing(found)


def servings(aws: Aws) -> Iterator[Thing]:
    """Deployments and provisioned throughputs. Raises AwsRefused and AwsUnreachable."""

    def tags(arn: str, name: str) -> dict[str, str]:
        return _tags(aws, arn, name)

    yield from _deployments(aws, tags)
    yield from _throughputs(aws, tags)


def _deployments(aws: Aws, tags: Read) -> Iterator[Thing]:
    what, key = "the deployments can't be listed", "modelDeploymentSummaries"
    for summary in aws.pages(what, "bedrock", "list_custom_model_deployments", key):
        arn = summary["customModelDeploymentArn"]
        name, status = summary["customModelDeploymentName"], summary["status"]
        usd = {"perHour": 0.0, "perMonth": 0.0}
        made = summary["createdAt"]
        yield _thing(tags, "deployment", arn, name, status, made, usd, summary["modelArn"])


def _throughputs(aws: Aws, tags: Read) -> Iterator[Thing]:
    what, key = "the provisioned throughputs can't be listed", "provisionedModelSummaries"
    for summary in aws.pages(what, "bedrock", "list_provisioned_model_throughputs", key):
        arn, name = summary["provisionedModelArn"], summary["provisionedModelName"]
        hour = _unit_hour(summary["foundationModelArn"], int(summary["modelUnits"]))
        usd_ = {"perHour": hour, "perMonth": None if hour is None else hour * cost.HOURS_PER_MONTH}
        kind, status = "provisioned-throughput", summary["status"]
        made = summary["creationTime"]
        thing = _thing(tags, kind, arn, name, status, made, usd_, summary["modelArn"])
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


def _models(aws: Aws, tags: Read) -> Iterator[Thing]:
    what, key = "the custom models can't be listed", "modelSummaries"
    for summary in aws.pages(what, "bedrock", "list_custom_models", key, isOwned=True):
        model = _known(summary["baseModelArn"])
        month = model.prices.storage_per_month if model and model.prices else None
        hour = None if month is None else month / cost.HOURS_PER_MONTH
        usd = {"perHour": hour, "perMonth": month}
        arn, name = summary["modelArn"], summary["modelName"]
        status = summary.get("modelStatus", "Active")
        thing = _thing(tags, "custom-model", arn, name, status, summary["creationTime"], usd)
        yield replace(thing, basis=_source(model, month))


def _imported(aws: Aws, tags: Read, gathering: Gathering) -> Iterator[Thing]:
    """Idle, an imported model costs its storage alone; its copies cost by use."""
    what, key = "the imported models can't be listed", "modelSummaries"
    for summary in aws.pages(what, "bedrock", "list_imported_models", key):
        arn, name = summary["modelArn"], summary["modelName"]
        model: Mapping[str, Any] = {}
        try:
            model = aws.call(what, "bedrock", "get_imported_model", modelIdentifier=arn)
        except AwsNotFound:  # removed since it was listed
            continue
        except (AwsRefused, AwsUnreachable) as error:  # it is there; what it costs is unknown
            gathering.miss(f"bedrock: the imported model {name}", error)
        units = model.get("customModelUnits", {})
        price = catalogue.unit_prices(str(units.get("customModelUnitsVersion")))
        month = price.unit_month if price else None
        month = None if month is None else month * int(units["customModelUnitsPerModelCopy"])
        usd = {"perHour": None if month is None else 0.0, "perMonth": month}
        thing = _thing(tags, "imported-model", arn, name, "Active", summary["creationTime"], usd)
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


def _data(aws: Aws, gathering: Gathering) -> Iterator[Thing]:
    """What cloudft staged for jobs that have ended, in buckets of this account.

    The folders of the jobs themselves stay: they are the record of what was made. Whatever a
    running job reads comes as IN_USE, whoever made that job. Raises where a job can't be read: what
    is in use is not known then.
    """
    account = _account(aws)
    what, key = "the jobs can't be listed", "modelCustomizationJobSummaries"
    operation = "list_model_customization_jobs"
    used: dict[str, tuple[str, Any]] = {}
    ended: dict[str, list[tuple[str, Any]]] = {}
    for summary in aws.pages(what, "bedrock", operation, key):
        arn, name = summary["jobArn"], summary["jobName"]
        running = summary["status"] in ("InProgress", "Stopping")
        if not running and not _is_ours(aws, arn, name):
            continue
        job = aws.call(
            "a job can't be read", "bedrock", "get_model_customization_job", jobIdentifier=arn
        )
        files = [job["trainingDataConfig"].get("s3Uri")]
        files += [v["s3Uri"] for v in job["validationDataConfig"].get("validators", ())]
        staged_files = {uri for uri in files if uri and request.STAGED.fullmatch(uri)}
        if running:
            used |= dict.fromkeys(staged_files, (job["jobName"], job["creationTime"]))
        for uri in () if running else staged_files:
            ended.setdefault(uri, []).append((job["jobName"], job["creationTime"]))
    for uri, (name, made) in used.items():
        usd = {"perHour": 0.0, "perMonth": None}
        yield Thing("data", uri, uri.rpartition("/")[2], IN_USE, str(states.iso(made)), usd, name)
    for uri, jobs in ended.items():
        if uri not in used:
            item = functools.partial(_file, aws, account, uri, jobs)
            yield from gathering.part(f"bedrock: {uri}", item)


def _is_ours(aws: Aws, arn: str, name: str) -> bool:
    """Return whether a job bears our tag, with its own name."""
    return bool(
        request.NAMES.fullmatch(name) and _tags(aws, arn, name).get(request.TAG_JOB) == name
    )


def _file(aws: Aws, account: str, uri: str, jobs: list[tuple[str, Any]]) -> Iterator[Thing]:
    """A staged file of those jobs, the newest first, if it is there."""
    bucket, _, path = uri.removeprefix("s3://").partition("/")
    if not _there(aws, {"Bucket": bucket, "ExpectedBucketOwner": account}, path):
        return
    (name, made), *others = jobs
    usd = {"perHour": 0.0, "perMonth": None}
    also = tuple(other for other, _ in others)
    made = str(states.iso(made))
    yield Thing("data", uri, path.rpartition("/")[2], "staged", made, usd, name, also=also)


def _account(aws: Aws) -> str:
    identity = aws.call("the identity can't be looked up", "sts", "get_caller_identity")
    return str(identity["Account"])


def _there(aws: Aws, where: Mapping[str, str], path: str) -> bool:
    """Return whether an object is there, in a bucket of this account."""
    try:
        return any(True for _ in objects(aws, where, path))
    except AwsNotFound:
        return False
    except AwsDenied:
        if is_bucket_of_another(aws, where["Bucket"]):
            return False
        raise


def _tags(aws: Aws, arn: str, name: str) -> dict[str, str]:
    what = f"the tags of {name} can't be read"
    try:
        answer = aws.call(what, "bedrock", "list_tags_for_resource", resourceARN=arn)
    except AwsNotFound:  # removed since it was listed
        return {}
    return {tag["key"]: tag["value"] for tag in answer["tags"]}


def _thing(
    read: Read,
    kind: str,
    arn: str,
    name: str,
    status: str,
    made: Any,
    usd: Mapping[str, float | None],
    model: str | None = None,
) -> Thing:
    tags = read(arn, name)
    told = tags or {}
    word = "ready" if status in READY else status
    return Thing(
        kind,
        arn,
        name,
        word,
        str(states.iso(made)),
        usd,
        told.get(request.TAG_JOB),
        model,
        told.get(EXPIRES),
        job_known=tags is not None,
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
