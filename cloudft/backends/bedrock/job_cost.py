"""What a customization job on Bedrock costs, by its type. Pure: prices come from the catalogue.

Fine-tuning is billed by tokens and epochs. A distillation also pays its teacher's answers. A
reinforcement fine-tuning is billed by the hour, and how long it takes is not known before it runs:
`reinforcement.max_hours` is its bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cloudft import catalogue
from cloudft.backends.bedrock import customizations, request
from cloudft.catalogue import Model, Prices, cost
from cloudft.spec.load import LoadedJob
from cloudft.types import BilledPart, DataVolume, Estimate, MissingPrice, UnknownAmount

MAX_PAIRS = 15_000
"""Pairs to which Bedrock's data synthesis may increase a distillation's training data. Source:
Bedrock user guide, "Customize a model with distillation in Amazon Bedrock", 2026-10."""
DISTILLATION_GUIDE = "Bedrock user guide, model-distillation"
MAX_RESPONSE = "distillation.max_response_length"


@dataclass(frozen=True)
class _Bill:
    """The parts of a bill, what they leave open, and whether they are an upper bound."""

    parts: tuple[BilledPart, ...]
    at_most: bool = False
    unknown: UnknownAmount | None = None
    notes: tuple[str, ...] = ()


def estimate_job(backend: str, job: LoadedJob, train: DataVolume) -> Estimate:
    """Return what a job costs by the catalogue's and the user's prices, for its training data.

    AWS does not publish how long a job takes, nor whether validation data is billed.
    """
    model, region = job.model, job.spec.bedrock.region
    prices = model.prices_in(region)
    build = {"DISTILLATION": _distillation, "REINFORCEMENT_FINE_TUNING": _reinforcement}.get(
        job.spec.customization_type, _fine_tuning
    )
    bill = build(job, train, prices)
    estimate = Estimate(
        backend=backend,
        train_tokens=train.tokens,
        epochs=request.count_epochs(job),
        usd={
            "training": None,
            "storagePerMonth": prices.usd("storage_per_month") if prices else None,
            "servingPerHour": cost.serving_usd_per_hour(model, prices),
        },
        seconds=None,
        price_source="",
        price_date="",
        at_most=bill.at_most,
        unpriced=_missing_price(job, bill.parts),
        unknown=bill.unknown,
        notes=bill.notes,
    )
    return cost.with_parts(estimate, bill.parts)


def _missing_price(job: LoadedJob, parts: tuple[BilledPart, ...]) -> MissingPrice | None:
    """Return the first price that is not known; None where all are."""
    part = next((part for part in parts if part.price is None), None)
    if part is None:
        return None
    region, own = job.spec.bedrock.region, part.model == job.model.alias
    place = f" in {region}" if region and job.model.prices else ""
    field = part.price_name.partition(".")[0]
    model = None if own else part.model
    return MissingPrice(f"{part.what} on Bedrock{place}", field, cost.PRICING_PAGE, model)


def _fine_tuning(job: LoadedJob, train: DataVolume, prices: Prices | None) -> _Bill:
    """Return tokens x epochs x price, by the formula of the Bedrock user guide."""
    tokens = train.tokens * request.count_epochs(job)
    return _Bill((_training(job.model, tokens, prices),))


def _training(model: Model, tokens: int | None, prices: Prices | None) -> BilledPart:
    what = f"training {model.alias}"
    return cost.billed_part(what, tokens, prices, model, "training_per_1k_tokens")


def _reinforcement(job: LoadedJob, train: DataVolume, prices: Prices | None) -> _Bill:
    section = job.spec.reinforcement
    hours = None if section is None else section.max_hours
    what = f"reinforcement fine-tuning of {job.model.alias}"
    part = cost.billed_part(what, hours, prices, job.model, "reinforcement_hour")
    if hours is None:
        unknown = UnknownAmount(
            "how many hours a reinforcement fine-tuning takes is not known before it runs",
            "reinforcement.max_hours",
            "8",
        )
        return _Bill((part,), unknown=unknown)
    note = (
        "reinforcement.max_hours holds while `cloudft watch` or `cloudft submit --wait` runs: it"
        " stops the job; Bedrock itself has no limit of time, so nothing stops it without a watcher"
    )
    grader = "the grader's Lambda function, and the models that it calls, are billed by use"
    return _Bill((part,), at_most=True, notes=(note, grader))


def _distillation(job: LoadedJob, train: DataVolume, prices: Prices | None) -> _Bill:
    """Return the student's training and the teacher's answers, both bounded by their length."""
    section = job.spec.distillation
    length = None if section is None else section.max_response_length
    known = _amounts(job, train, train.records, length)
    most = _amounts(job, train, max(train.records, _max_pairs(job)), length)
    parts = _distillation_parts(job, prices, most)
    if length is None:
        unknown = UnknownAmount("how long the teacher's answers are", MAX_RESPONSE, "1024")
        return _Bill(parts, unknown=unknown)
    without = cost.sum_parts(_distillation_parts(job, prices, known))
    note = (
        f"Bedrock may add synthetic pairs up to {most.pairs:,} in all, each as long as yours are on"
        f" average here ({DISTILLATION_GUIDE}, 2026-10)"
    )
    if without is not None:
        note += f"; without them it is at most {cost.format_usd(without)}"
    return _Bill(parts, at_most=True, notes=(note,))


@dataclass(frozen=True)
class _Amounts:
    """How many pairs a distillation has, and the tokens of their prompts and answers."""

    pairs: int
    prompts: int
    answers: int | None


def _max_pairs(job: LoadedJob) -> int:
    limits = job.model.limits.get(job.spec.customization_type)
    return (limits.records_max if limits else None) or MAX_PAIRS


def _amounts(job: LoadedJob, train: DataVolume, pairs: int, length: int | None) -> _Amounts:
    prompts = round(train.tokens * pairs / max(1, train.records))
    return _Amounts(pairs, prompts, None if length is None else pairs * length)


def _distillation_parts(
    job: LoadedJob, prices: Prices | None, amounts: _Amounts
) -> tuple[BilledPart, ...]:
    answers, epochs = amounts.answers, request.count_epochs(job)
    tokens = None if answers is None else (amounts.prompts + answers) * epochs
    student = _training(job.model, tokens, prices)
    teacher = find_teacher(job)
    if teacher is None:
        return (student, BilledPart("the answers of the teacher", None, "token", None))
    # AWS bills the teacher's answers at its on-demand rates.
    name = cost.base_price_name(customizations.teacher_id(job))
    teacher_prices = teacher.prices_in(job.spec.bedrock.region)
    return (
        student,
        *(
            cost.billed_part(
                f"{what} {teacher.alias}", count, teacher_prices, teacher, f"{name}.{side}"
            )
            for what, count, side in (
                ("the prompts of", amounts.prompts, "input"),
                ("the answers of", answers, "output"),
            )
        ),
    )


def find_teacher(job: LoadedJob) -> Model | None:
    """Return the teacher of a distillation, where the catalogue knows it."""
    section = job.spec.distillation
    if section is None or section.teacher is None:
        return None
    known = catalogue.find_catalogue_model(section.teacher)
    return None if known is None else catalogue.find_model(known.alias)


def priced_models(job: LoadedJob) -> Mapping[str, Model]:
    """Return the models whose prices the job's estimate has, by alias."""
    teacher = find_teacher(job) if job.spec.customization_type == "DISTILLATION" else None
    return {model.alias: model for model in (job.model, teacher) if model is not None}
