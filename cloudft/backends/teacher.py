"""The teacher of a distillation whose student cloudft's own trainer trains.

A model on this machine is a part of the trainer's request: the trainer lets it answer. The answers
of a model of Bedrock are collected before the job is submitted (jobs/teacher_answers.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from cloudft import catalogue
from cloudft.backends.findings import FindingFactory
from cloudft.catalogue import Model, cost
from cloudft.errors import UnknownModel
from cloudft.spec.load import LoadedJob
from cloudft.types import BilledPart, DataVolume, Estimate, Finding, MissingPrice

DEFAULT_RESPONSE_LENGTH = 1024
"""Tokens of an answer where the job file has no distillation.max_response_length."""
FIELD = "distillation.teacher"


def find_teacher(job: LoadedJob) -> Model | None:
    """Return the teacher's model; None for a job without one. Raise UnknownModel."""
    section = job.spec.distillation
    if job.spec.customization_type != "DISTILLATION" or section is None or section.teacher is None:
        return None
    return catalogue.find_model(section.teacher, base_dir=job.base_dir)


def find_bedrock_teacher(job: LoadedJob) -> Model | None:
    """Return the teacher's model if Bedrock has it. Raise UnknownModel."""
    teacher = find_teacher(job)
    return None if teacher is None or teacher.is_open_weight else teacher


def response_length(job: LoadedJob) -> int:
    """Return the most tokens of a teacher's answer."""
    section = job.spec.distillation
    return (section and section.max_response_length) or DEFAULT_RESPONSE_LENGTH


def teacher_id(job: LoadedJob, teacher: Model) -> str:
    """Return the id by which Bedrock's teacher is called: the job file's, or one of its Region."""
    section = job.spec.distillation
    name = str(section.teacher if section else teacher.alias)
    if name != teacher.alias or teacher.bedrock_id is None:
        return name
    return catalogue.inference_id(teacher.bedrock_id, str(job.spec.bedrock.region))


def check_teacher(job: LoadedJob, *, trains_here: bool) -> Iterator[Finding]:
    """Yield what prevents the job's teacher from answering; all other jobs have no findings.

    `trains_here` is False where the trainer runs on another machine, without a teacher.
    """
    if job.spec.customization_type != "DISTILLATION":
        return
    finding, section = FindingFactory(job), job.spec.distillation
    if section is None or (section.teacher is None and not section.answers):
        message = "DISTILLATION needs a teacher, or the answers that one gave"
        fix = "write `distillation: {teacher: MODEL}`, or `distillation: {answers: FILE}`."
        yield finding("MissingValue", "distillation", message, fix)
        return
    try:
        teacher = find_teacher(job)
    except UnknownModel as error:
        yield finding(error.code, FIELD, error.message, error.fix or "")
        return
    if teacher is None:
        return
    if teacher.is_open_weight:
        yield from _check_local_teacher(teacher, finding, trains_here=trains_here)
        return
    if teacher.lifecycle.state == "end-of-life":
        message = f"the teacher {teacher.alias} is past its end of life ({teacher.lifecycle.date})"
        successor = f" such as {teacher.successor}" if teacher.successor else ""
        yield finding("ModelEndOfLife", FIELD, message, f"name another model{successor}.")
    if job.spec.bedrock.region is None:
        message = f"the teacher {teacher.alias} answers on Bedrock, and no AWS Region is set"
        yield finding(
            "MissingValue", "bedrock.region", message, "set bedrock.region or AWS_REGION."
        )


def _check_local_teacher(
    teacher: Model, finding: FindingFactory, *, trains_here: bool
) -> Iterator[Finding]:
    if not trains_here:
        message = f"the teacher {teacher.alias} is a model of this machine, the student trains on"
        fix = (
            "use --backend local; or let the teacher answer here (`cloudft generate JOB --base"
            " --file PROMPTS.jsonl`) and give the file as distillation.answers."
        )
        yield finding("TeacherNotThere", FIELD, f"{message} another one", fix)
        return
    places = catalogue.find_weights(teacher)
    if any(one.is_present for one in places):
        return
    hub = next((one.weights.hub_id for one in places if one.weights.kind == "hub"), None)
    message = f"the weights of the teacher {teacher.alias} are not on this machine"
    fix = f"download them first: hf download {hub}" if hub else f"{places[0].description}."
    yield finding("WeightsNotHere", FIELD, message, fix, "warning" if hub else "error")


def with_teacher(
    estimate: Estimate,
    job: LoadedJob,
    volumes: Mapping[str, DataVolume],
    *,
    trains_here: bool = True,
) -> Estimate:
    """Return the estimate with the teacher's answers to all prompts: an upper bound.

    A teacher on this machine has no price. Answers that are given or cached are not left out.
    """
    try:
        teacher = find_teacher(job)
    except UnknownModel:
        return estimate
    if teacher is None or (teacher.is_open_weight and not trains_here):
        return estimate
    records = sum(volume.records for volume in volumes.values())
    prompts, answers = sum(v.tokens for v in volumes.values()), records * response_length(job)
    note = (
        f"the teacher {teacher.alias} answers at most {records:,} prompts: {prompts:,} tokens in,"
        f" at most {answers:,} tokens out"
    )
    if teacher.is_open_weight:
        note = f"{note}, on this machine"
        return replace(estimate, notes=(*estimate.notes, note))
    parts = _teacher_parts(job, teacher, prompts, answers)
    unpriced = estimate.unpriced
    if any(part.price is None for part in parts):
        what = f"the answers of {teacher.alias} on Bedrock"
        field = parts[0].price_name.partition(".")[0]
        unpriced = unpriced or MissingPrice(what, field, cost.PRICING_PAGE, teacher.alias)
    estimate = replace(estimate, at_most=True, unpriced=unpriced, notes=(*estimate.notes, note))
    source = f"{estimate.price_source}; " if estimate.parts else ""
    found = cost.with_parts(estimate, [*estimate.parts, *parts])
    return replace(found, price_source=f"{source}{_price_source(parts)}")


def _price_source(parts: tuple[BilledPart, ...]) -> str:
    price = parts[-1].price
    return cost.NO_PRICE_KNOWN if price is None else price.source


def _teacher_parts(
    job: LoadedJob, teacher: Model, prompts: int, answers: int
) -> tuple[BilledPart, ...]:
    name = cost.base_price_name(teacher_id(job, teacher))
    prices = teacher.prices_in(job.spec.bedrock.region)
    return tuple(
        cost.billed_part(f"{what} {teacher.alias}", count, prices, teacher, f"{name}.{side}")
        for what, count, side in (
            ("the prompts of", prompts, "input"),
            ("the answers of", answers, "output"),
        )
    )
