"""The facts of a tuned model that others get: one source for the model card and the BOM.

They hold no text of any record, no path, no name of an account, and nothing secret: each field is
chosen here, so that a new field of a job is not published by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import PurePath, PurePosixPath
from typing import Any

from cloudft import __version__
from cloudft.errors import DamagedJob, JobStateConflict
from cloudft.evaluate.history import load_combined_evaluation
from cloudft.evaluate.inference.cached_inference import BASE, TUNED
from cloudft.evaluate.metrics.intervals import mean_interval
from cloudft.evaluate.metrics.metric_labels import diagnostic_label, metric_label
from cloudft.evaluate.metrics.scores import LOWER_IS_BETTER
from cloudft.evaluate.results import Evaluation
from cloudft.jobs.lifecycle import Job
from cloudft.publishing.base_model import BaseModel, find_base_model

LIBRARIES = (
    *("torch", "transformers", "tokenizers", "peft", "accelerate", "safetensors"),
    *("bitsandbytes", "gguf"),
)
"""Distributions that train, merge and write models; those that are installed are named."""
METHOD_NAMES = {
    "lora": "LoRA",
    "qlora": "QLoRA (4-bit base)",
    "full": "full fine-tuning",
}
OPTIONAL_METRICS = ("emptyShare", "cutShare", "refusalShare", "noLabelShare")
"""Metrics that are left out while they are zero for both models."""
WARNINGS = {
    "TrainUnknown": "The training records were deleted before the evaluation, so it is not known"
    " whether held-out records were trained on.",
    "LeakedTestSet": "Some held-out records are training records: their scores say nothing about"
    " new input.",
    "NearlyLeaked": "Some held-out inputs are near duplicates of training inputs.",
    "ValidationData": "The scores are of the validation records, by which training selected the"
    " best weights: they are too good.",
    "FewRecords": "There are few held-out records: only large differences are statistically"
    " significant.",
    "EmptyAnswers": "Many answers of one of the models are empty.",
    "AnswersCut": "Many answers were cut off at the token limit.",
    "SameAnswers": "Both models give the same answer to every held-out record.",
    "OneLabel": "Every held-out record has the same label.",
    "LabelsNeverSeen": "Some held-out labels do not occur in the training data.",
}
"""Code of a warning -> what others should know. The evaluation's own message may quote records."""


_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class DataFile:
    """A file that the job read: its role, name and digest, and the number of its records."""

    role: str
    name: str
    sha256: str
    bytes: int
    records: int
    format: str


@dataclass(frozen=True)
class Score:
    """A metric of both models. `interval` is that of the difference, 95 %.

    `base_interval` and `tuned_interval` are of the values themselves, of the headline metric where
    it is the mean of the records' scores.
    """

    name: str
    label: str
    base: float | None
    tuned: float | None
    difference: float | None
    interval: tuple[float, float] | None
    lower_is_better: bool
    is_headline: bool = False
    base_interval: tuple[float, float] | None = None
    tuned_interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class EvaluationFacts:
    """An evaluation without its records. `engine` answered instead of the job's own backend."""

    evaluated_at: str
    task: str
    records: int
    data_sha256: str
    data_role: str
    sentence: str
    test: str
    p_value: float
    scores: tuple[Score, ...]
    findings: tuple[str, ...]
    warnings: tuple[str, ...]
    engine: str | None = None


@dataclass(frozen=True)
class ModelFacts:
    """All that is published about a tuned model."""

    job_id: str
    name: str
    customization_type: str
    method: str
    backend: str
    created_at: str
    ended_at: str | None
    base: BaseModel
    settings: tuple[tuple[str, str], ...]
    data: tuple[DataFile, ...]
    data_sha256: str
    evaluation: EvaluationFacts | None
    context: int | None = None
    chat_template: str | None = None
    trained_parameters: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)


def collect_facts(job: Job, base_id: str | None = None) -> ModelFacts:
    """Return the facts of a job. `base_id` is the base's hub id, where people name it.

    Raise JobStateConflict for a job without a tuned model.
    """
    record, state = job.record, job.state
    if state.status != "Completed":
        raise JobStateConflict(
            f"{record.id} has no tuned model: it is {state.status}",
            fix="wait for its end: cloudft watch " + record.id,
        )
    summary = state.summary
    evaluation = _load_evaluation(job)
    base = find_base_model(record, summary.get("model"), base_id)
    base = replace(base, sha256=_base_digest(evaluation))
    return ModelFacts(
        job_id=record.id,
        name=record.name,
        customization_type=record.customization_type,
        method=METHOD_NAMES.get(str(summary.get("method")), str(summary.get("method") or "")),
        backend=record.backend,
        created_at=record.created_at,
        ended_at=state.ended_at,
        base=base,
        settings=tuple(_settings(job)),
        data=tuple(_data_files(record.manifest.get("sources", []))),
        data_sha256=str(record.manifest.get("sha256", "")),
        evaluation=_summarize(evaluation) if evaluation else None,
        context=summary.get("maxLength") or base.context,
        chat_template=_template(summary.get("chatTemplate")),
        trained_parameters=summary.get("trainedParameters"),
        versions=installed_versions(),
    )


def installed_versions() -> dict[str, str]:
    """Return the versions of cloudft and of the libraries that are installed here."""
    found = {"cloudft": __version__}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _load_evaluation(job: Job) -> Evaluation | None:
    try:
        return load_combined_evaluation(job.record.folder)
    except DamagedJob:
        raise
    except JobStateConflict:
        return None


def _base_digest(evaluation: Evaluation | None) -> str | None:
    """Return the sha256 of the base's weights, where an evaluation of them here measured it."""
    identities = evaluation.get("identities") if evaluation else None
    identity = (identities or {}).get(BASE)
    return identity if identity and _SHA256.fullmatch(identity) else None


def _template(value: object) -> str | None:
    """Return how chats are written; a file's name without its folder."""
    return PurePosixPath(str(value)).name if value else None


def _settings(job: Job) -> Iterator[tuple[str, str]]:
    """Yield the settings that decided the training."""
    record, summary = job.record, job.state.summary
    request: Mapping[str, Any] = record.request
    for name, value in record.hyper_parameters.items():
        yield name, _number(value)
    if summary.get("method") in ("lora", "qlora"):
        yield from _leaves(request.get("lora"), "LoRA")
    yield from _leaves(request.get("preference"), "preference")
    yield from _leaves(request.get("reinforcement"), "reinforcement")
    for name, label in (("seed", "seed"), ("dtype", "number format"), ("maxLength", "tokens")):
        value = summary.get(name, request.get(name))
        if value is not None:
            yield label, _number(value)
    adapters = summary.get("adapters")
    if isinstance(adapters, Mapping) and isinstance(adapters.get("text"), str):
        yield "adapters", adapters["text"]


LEAVES = (
    *("r", "alpha", "dropout", "target_modules"),
    *("method", "beta", "label_smoothing", "simpo_gamma"),
    *("temperature", "epsilon", "num_iterations", "loss_type", "scale_rewards"),
)
"""Settings of a section that are published; a path among later ones is not."""


def _leaves(section: object, label: str) -> Iterator[tuple[str, str]]:
    if isinstance(section, Mapping):
        for name, value in section.items():
            if name in LEAVES and value is not None:
                text = ", ".join(map(str, value)) if isinstance(value, list) else _number(value)
                yield f"{label} {name}", text


def _number(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _data_files(sources: Sequence[Mapping[str, Any]]) -> Iterator[DataFile]:
    for one in sources:
        yield DataFile(
            role=str(one["role"]),
            name=PurePath(str(one["path"])).name,
            sha256=str(one["sha256"]),
            bytes=int(one["bytes"]),
            records=int(one["records"]),
            format=str(one.get("shape", "")),
        )


def _summarize(evaluation: Evaluation) -> EvaluationFacts:
    significance = evaluation["significance"]
    return EvaluationFacts(
        evaluated_at=evaluation.get("createdAt", ""),
        task=evaluation["task"],
        records=evaluation["n"],
        data_sha256=evaluation["data"]["sha256"],
        data_role=evaluation["data"]["role"],
        sentence=significance["sentence"],
        test=significance["test"],
        p_value=significance["pValue"],
        scores=tuple(_scores(evaluation)),
        findings=tuple(
            f"{diagnostic_label(name)}: {one['sentence']}"
            for name, one in sorted(evaluation.get("pitfalls", {}).items())
        ),
        warnings=tuple(_warnings(evaluation)),
        engine=_engine(evaluation),
    )


def _engine(evaluation: Evaluation) -> str | None:
    """Return what answered for the tuned model, without the address that it was at."""
    engine = evaluation.get("engine")
    if engine is None:
        return None
    name = "an OpenAI-compatible server" if engine["name"] == "openai" else engine["name"]
    return f"{name} ({engine['version']})" if engine["version"] else name


def _warnings(evaluation: Evaluation) -> Iterator[str]:
    for code in dict.fromkeys(one["code"] for one in evaluation["warnings"]):
        yield WARNINGS.get(code, f"The evaluation has the warning {code}.")


def _scores(evaluation: Evaluation) -> Iterator[Score]:
    """Yield the metrics, the headline metric first."""
    headline = evaluation["metric"]
    for name in sorted(evaluation["base"], key=lambda name: name != headline):
        base, tuned = evaluation["base"][name], evaluation["tuned"].get(name)
        if name in OPTIONAL_METRICS and not base and not tuned:
            continue
        delta = evaluation["delta"][name]
        low, high = delta["low"], delta["high"]
        yield Score(
            name=name,
            label=metric_label(name),
            base=base,
            tuned=tuned,
            difference=delta["value"],
            interval=None if low is None or high is None else (low, high),
            lower_is_better=name in LOWER_IS_BETTER,
            is_headline=name == headline,
            base_interval=_interval(evaluation, BASE, base) if name == headline else None,
            tuned_interval=_interval(evaluation, TUNED, tuned) if name == headline else None,
        )


def _interval(
    evaluation: Evaluation, variant: str, value: float | None
) -> tuple[float, float] | None:
    """Return the interval of a mean of the records' scores; None where the metric is no such mean.

    Micro-averaged figures, for example, are no mean of the records.
    """
    scores = [
        record["base"]["score"] if variant == BASE else record["tuned"]["score"]
        for record in evaluation["records"]
    ]
    if value is None or not scores or abs(sum(scores) / len(scores) - value) > 1e-6:
        return None
    return mean_interval(scores)


def describe_limits(facts: ModelFacts) -> list[str]:
    """Return what the evaluation does not show, and what the model was not made for."""
    found = facts.evaluation
    if found is None:
        limits = ["Nothing is known about how well it answers: it was not evaluated."]
    else:
        limits = [
            f"The scores are of {found.records} records of one task. They say nothing about other"
            " tasks, other languages, or about safety, bias and truth of the answers.",
            *found.warnings,
            *found.findings,
        ]
    records = sum(one.records for one in facts.data if one.role == "train")
    limits.append(f"It was tuned on {records:,} records; the base's own limits remain.")
    if facts.context:
        limits.append(f"It was trained on texts of up to {facts.context:,} tokens.")
    return limits
