"""The routes to a tuned model for one job's data, side by side: training, storage, serving, time.

Nothing is sent: prices come from the catalogue and from the user, lengths from the data.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import orjson

from cloudft import catalogue, types
from cloudft.backends import make_backend
from cloudft.backends.bedrock import job_cost
from cloudft.backends.observer import SILENT, RunObserver
from cloudft.backends.trained_model import trained_model
from cloudft.catalogue import Model
from cloudft.catalogue.service_prices import KMS_KEY_MONTH, S3_GIGABYTE_MONTH, load_service_prices
from cloudft.catalogue.serving_cost import (
    Serving,
    Traffic,
    import_serving,
    import_unit_version,
    tuned_servings,
)
from cloudft.data.checks.dataset_limits import DatasetLimits
from cloudft.data.findings import Findings
from cloudft.data.formats.record import BadRecord
from cloudft.data.formats.registry import encode_record
from cloudft.data.records import read_records
from cloudft.data.sources.source_files import SourceResolver
from cloudft.data.token_estimate import estimate_tokens
from cloudft.errors import CheckFailed, UsageError
from cloudft.jobs.prepare import check_records
from cloudft.spec.load import LoadedJob
from cloudft.storage.home import Home
from cloudft.types import DataVolume, Estimate

SAMPLE = 1000
"""Records whose lengths and formats are read."""
IMPORT_REGION = "us-east-1"
NO_TIME = "AWS publishes no time of a job"
BYTES_PER_WEIGHT = 2


@dataclass(frozen=True)
class Route:
    """A way from the data to a model that answers. `training_usd` is None where it is unknown.

    With `training_at_most` it is an upper bound. `servings` has the ways to serve the model,
    `unknown` what is not known of the route, `time` what is known of its time.
    """

    name: str
    kind: str
    model: str
    region: str | None
    training_usd: float | None
    training_at_most: bool = False
    storage_usd_per_month: float | None = None
    servings: tuple[Serving, ...] = ()
    time: str = NO_TIME
    price_source: str = ""
    unknown: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def cheapest(self, months: int, requests: int | float | None = None) -> Serving | None:
        """Return the serving that costs least over so many months, for `requests` a month."""
        known = [
            (usd * serving.billed_months(months), number, serving)
            for number, serving in enumerate(self.servings)
            for usd in [serving.usd_per_month if requests is None else serving.usd_for(requests)]
            if usd is not None
        ]
        return min(known)[2] if known else None

    def total_usd(self, months: int, requests: int | float | None = None) -> float | None:
        """Return training, and storage and serving for so many months; None if one is unknown.

        A commitment is billed to the end of its term.
        """
        serving = self.cheapest(months, requests)
        if self.training_usd is None or self.storage_usd_per_month is None or serving is None:
            return None
        usd = serving.usd_per_month if requests is None else serving.usd_for(requests)
        assert usd is not None
        served = serving.billed_months(months) * usd
        return self.training_usd + months * self.storage_usd_per_month + served


@dataclass(frozen=True)
class Comparison:
    """The routes, the cheapest first, and what they assume."""

    traffic: Traffic
    months: int
    lengths_from: str
    routes: tuple[Route, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Models that can't take this data, with the reason."""
    assumptions: tuple[str, ...] = (
        "requests are spread evenly over the month, around the clock (730 hours)",
        "one provisioned unit, and one copy of an imported model, answer them all",
        "the total has whole terms: a commitment is billed to its end, used or not",
        "lengths are those of the data's records unless they are given",
    )


@dataclass(frozen=True)
class MeanLengths:
    """The mean tokens of a record's prompt and answer."""

    input_tokens: int
    output_tokens: int
    records: int


@dataclass(frozen=True)
class Usage:
    """How the model will be used; a length that is None is the mean of the data."""

    input_tokens: int | None
    output_tokens: int | None
    requests: int
    months: int


def compare(job: LoadedJob, home: Home, usage: Usage, observer: RunObserver = SILENT) -> Comparison:
    """Return every route for the job's data. Raise CheckFailed for data with errors, UsageError."""
    if job.spec.customization_type != "FINE_TUNING":
        raise UsageError(
            f"routes of {job.spec.customization_type} are not compared",
            fix="set customization_type: FINE_TUNING, or estimate without --compare.",
        )
    data = check_records(job, observer)
    if data.volumes is None:
        errors = [f for f in data.findings if f.severity == "error"]
        raise CheckFailed(errors[0].message, data.findings)
    lengths = measure_lengths(job)
    traffic = Traffic(
        usage.requests,
        usage.input_tokens or lengths.input_tokens,
        usage.output_tokens or lengths.output_tokens,
    )
    given = None not in (usage.input_tokens, usage.output_tokens)
    measured = f"the mean of {lengths.records} records of the data, 6 characters a token"
    left_out: dict[str, str] = {}
    train = data.volumes["train"]
    routes = [
        *_bedrock_routes(job, train, traffic, left_out),
        *_distillation_routes(job, train, lengths, traffic),
        *_import_routes(job, _open_weight_estimates(job, home, data.volumes), traffic),
        *_serverless_routes(job),
    ]
    ordered = sorted(routes, key=lambda route: _order(route, usage.months))
    source = "given" if given else measured
    return Comparison(traffic, usage.months, source, tuple(ordered), left_out)


def to_json(comparison: Comparison) -> dict[str, object]:
    """Return a comparison as the command prints it, with the total of each route."""
    value: dict[str, object] = types.to_json(comparison)
    value["routes"] = [
        {**types.to_json(route), "totalUsd": route.total_usd(comparison.months)}
        for route in comparison.routes
    ]
    return value


def _order(route: Route, months: int) -> tuple[bool, float, str]:
    total = route.total_usd(months)
    return total is None, total or 0.0, route.name


def measure_lengths(job: LoadedJob) -> MeanLengths:
    """Return the mean lengths of the data's first records: what is learned is the answer."""
    prompts = answers = count = 0
    for line in _encoded(job, "converse"):
        record = orjson.loads(line)
        prompt, answer = _text_lengths(record)
        prompts, answers, count = prompts + prompt, answers + answer, count + 1
    if not count:
        raise UsageError(
            "the data has no prompts with answers to take lengths from",
            fix="give --input-tokens and --output-tokens.",
        )
    return MeanLengths(
        estimate_tokens(round(prompts / count)), estimate_tokens(round(answers / count)), count
    )


def _text_lengths(record: Mapping[str, object]) -> tuple[int, int]:
    """Return the characters of a converse record's prompt and of its last answer."""
    messages = record.get("messages")
    assert isinstance(messages, list)
    texts = [(m["role"], sum(len(p.get("text", "")) for p in m["content"])) for m in messages]
    answer = texts[-1][1] if texts and texts[-1][0] == "assistant" else 0
    system = record.get("system")
    head = sum(len(p.get("text", "")) for p in system) if isinstance(system, list) else 0
    return head + sum(length for _, length in texts) - answer, answer


def _encoded(job: LoadedJob, target: str) -> Iterator[bytes]:
    """Yield the first records of the training data in a format; skip those that it can't hold."""
    for line in itertools.islice(_try_encode(job, target), SAMPLE):
        if line is not None:
            yield line


def _try_encode(job: LoadedJob, target: str) -> Iterator[bytes | None]:
    columns = {str(name): column for name, column in job.spec.data.columns.items()}
    unread = Findings()  # what is wrong with the files was found before
    sources = SourceResolver(job.base_dir, unread).resolve("data.train", job.spec.data.train)
    for located in read_records(sources, unread, columns, None, target):
        try:
            yield encode_record(located.record, target)[0]
        except BadRecord:
            yield None


def _bedrock_routes(
    job: LoadedJob, train: DataVolume, traffic: Traffic, left_out: dict[str, str]
) -> Iterator[Route]:
    """Yield fine-tuning on Bedrock by every model that takes this data."""
    for model in _trainable("FINE_TUNING"):
        reason = _refusal(job, model, train)
        if reason is not None:
            left_out[model.alias] = reason
            continue
        other, notes = _job_for(job, model, "FINE_TUNING")
        estimate = job_cost.estimate_job("bedrock", other, train)
        region = other.spec.bedrock.region
        prices = model.prices_in(region)
        yield Route(
            name=f"fine-tune {model.alias} on Bedrock",
            kind="bedrock-fine-tuning",
            model=model.alias,
            region=region,
            training_usd=estimate.usd["training"],
            storage_usd_per_month=estimate.usd["storagePerMonth"],
            servings=tuple(tuned_servings(model, prices, traffic)),
            price_source=estimate.price_source,
            unknown=_missing(estimate),
            notes=(*notes, *_key_notes(job), *_age_notes(estimate)),
        )


def _trainable(kind: str) -> Iterator[Model]:
    """Yield the models before their end of life that Bedrock's own API customizes so."""
    for model in catalogue.load_models():
        is_there = model.bedrock_id is not None and model.lifecycle.state != "end-of-life"
        if is_there and model.customization_api == "bedrock" and kind in model.customization_types:
            yield catalogue.find_model(model.alias)


def _refusal(job: LoadedJob, model: Model, train: DataVolume) -> str | None:
    """Return why a model can't take this data, by its format and its number of records."""
    lines = list(itertools.islice(_try_encode(job, model.formats["FINE_TUNING"]), SAMPLE))
    unfit = lines.count(None)
    if unfit:
        return f"{unfit} of the first {len(lines)} records don't fit {model.formats['FINE_TUNING']}"
    limits = DatasetLimits.for_model(model, "FINE_TUNING", 1)
    errors = [v for v in limits.check_dataset({"train": train}) if v.severity == "error"]
    return errors[0].message if errors else None


def _job_for(job: LoadedJob, model: Model, kind: str) -> tuple[LoadedJob, tuple[str, ...]]:
    """Return the job with another model and type, in a Region of the model, and what is changed."""
    notes = list(_life_notes(model))
    region = job.spec.bedrock.region
    if region not in model.regions:
        if region is not None:
            notes.append(f"in {model.regions[0]}: Bedrock does not train it in {region}")
        region = model.regions[0]
    epochs = job.spec.hyperparameters.get("epochCount")
    row = model.hyperparameters.get("epochCount")
    if epochs is not None and row is not None and not row.min <= epochs <= row.max:
        notes.append(f"{row.max:g} epochs, the most that it takes, and not {epochs:g}")
        epochs = row.max
    hyperparameters = {} if epochs is None or row is None else {"epochCount": int(epochs)}
    bedrock = job.spec.bedrock.model_copy(update={"region": region})
    spec = job.spec.model_copy(
        update={
            "base_model": model.alias,
            "customization_type": kind,
            "hyperparameters": hyperparameters,
            "bedrock": bedrock,
        }
    )
    return replace(job, spec=spec, model=model), tuple(notes)


def _life_notes(model: Model) -> Iterable[str]:
    if model.lifecycle.state == "legacy":
        yield f"{model.alias} is Legacy, its end of life is {model.lifecycle.date or 'not known'}"


def _distillation_routes(
    job: LoadedJob, train: DataVolume, lengths: MeanLengths, traffic: Traffic
) -> Iterator[Route]:
    """Yield distillation of every student by each of its teachers, with the data's prompts."""
    from cloudft.backends.bedrock.job_section import Distillation

    prompts = replace(train, tokens=train.records * lengths.input_tokens)
    length = max(1, lengths.output_tokens)
    for model in _trainable("DISTILLATION"):
        limits = DatasetLimits.for_model(model, "DISTILLATION", 1)
        if any(v.severity == "error" for v in limits.check_dataset({"train": prompts})):
            continue
        for teacher in model.teachers:
            other, notes = _job_for(job, model, "DISTILLATION")
            section = Distillation(teacher=teacher, max_response_length=length)
            other = replace(other, spec=other.spec.model_copy(update={"distillation": section}))
            estimate = job_cost.estimate_job("bedrock", other, prompts)
            region = other.spec.bedrock.region
            alias = catalogue.find_model(teacher).alias
            yield Route(
                name=f"distil {alias} into {model.alias} on Bedrock",
                kind="bedrock-distillation",
                model=model.alias,
                region=region,
                training_usd=estimate.usd["training"],
                training_at_most=True,
                storage_usd_per_month=estimate.usd["storagePerMonth"],
                servings=tuple(tuned_servings(model, model.prices_in(region), traffic)),
                price_source=estimate.price_source,
                unknown=_missing(estimate),
                notes=(
                    *notes,
                    f"answers of {length} tokens, as long as those in the data",
                    *estimate.notes,
                    *_age_notes(estimate),
                ),
            )


def _import_routes(
    job: LoadedJob, estimates: Sequence[Estimate], traffic: Traffic
) -> Iterator[Route]:
    """Yield training open weights here and on SageMaker, with the import into Bedrock."""
    model = trained_model(job)
    if model is None:
        return
    region = _import_region(job)
    version = import_unit_version(model)
    serving, storage, units = import_serving(model.parameters, version, region, traffic)
    weights = _weights_usd(model, region)
    if storage is not None and weights is not None:
        storage += weights
    count = f"{units.low}" if units.low == units.high else f"{units.low} to {units.high or '?'}"
    for estimate in (one for one in estimates if one.backend in ("local", "sagemaker")):
        here = estimate.backend == "local"
        place = "here" if here else "on SageMaker"
        yield Route(
            name=f"train {model.alias} {place}, import it into Bedrock",
            kind=f"{estimate.backend}-import",
            model=model.alias,
            region=region,
            training_usd=estimate.usd["training"],
            training_at_most=estimate.at_most,
            storage_usd_per_month=storage,
            servings=(serving,),
            time="`cloudft estimate --probe` measures it"
            if here
            else "not known before it runs; bounded by sagemaker.max_runtime_seconds",
            price_source=estimate.price_source,
            unknown=(*_missing(estimate), serving.unknown),
            notes=(
                f"{count} custom model units {version} a copy: {units.reason}",
                "the import itself is not billed",
                *(() if weights is not None else (f"S3's price in {region} is not known here",)),
                *(estimate.notes),
            ),
        )


def _import_region(job: LoadedJob) -> str:
    regions = catalogue.load_import_rules().regions
    region = job.spec.bedrock.region
    return region if region in regions else IMPORT_REGION


def _weights_usd(model: Model, region: str) -> float | None:
    """Return what the weights in S3 cost a month; None where size or price are unknown."""
    price = load_service_prices()[S3_GIGABYTE_MONTH]
    if model.parameters is None or not price.is_of(region):
        return None
    return model.parameters * BYTES_PER_WEIGHT / 1e9 * price.usd


def _serverless_routes(job: LoadedJob) -> Iterator[Route]:
    """Yield SageMaker's serverless customization of the base model, which has no listed price."""
    listed = catalogue.find_serverless_model(job.model)
    techniques = catalogue.techniques_for(job.spec.customization_type)
    if listed is None or not set(techniques) & set(listed.techniques):
        return
    yield Route(
        name=f"tune {job.model.alias} by SageMaker's serverless customization",
        kind="sagemaker-serverless",
        model=job.model.alias,
        region=None,
        training_usd=None,
        unknown=("no price of its tokens is published where cloudft's catalogue looked",),
    )


def _missing(estimate: Estimate) -> tuple[str, ...]:
    texts = [estimate.unpriced.what] if estimate.unpriced else []
    return tuple(f"no price is known for {text}" for text in texts)


def _age_notes(estimate: Estimate) -> Iterable[str]:
    if estimate.price_is_old:
        yield f"the price of training is more than a year old ({estimate.price_date})"


def _key_notes(job: LoadedJob) -> Iterable[str]:
    """Yield what the job's own key costs, which its other jobs share."""
    price = load_service_prices()[KMS_KEY_MONTH]
    if job.spec.bedrock.kms_key_id is not None:
        yield f"the key bedrock.kms_key_id costs {price.usd:.2f} USD a month ({price.source})"


def _open_weight_estimates(
    job: LoadedJob, home: Home, volumes: Mapping[str, DataVolume]
) -> list[Estimate]:
    """Return the estimates of the backends that train open weights."""
    if trained_model(job) is None:
        return []
    names = ("local", "sagemaker")
    return [make_backend(name, home).for_job(job).estimate(job, volumes) for name in names]
