"""Render one self-contained page about a job: settings, data, loss, evaluation, cost, origin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cloudft.catalogue.cost import format_usd
from cloudft.catalogue.evaluation_metrics import JUDGE_METRICS
from cloudft.evaluate.compare import ChangedRecord, describe_change
from cloudft.evaluate.inference.cached_inference import VARIANTS
from cloudft.evaluate.judged import SUITE_PREFIX
from cloudft.evaluate.metrics.scores import LOWER_IS_BETTER
from cloudft.evaluate.report.changed_records import judged_group, make_groups, share_prompts
from cloudft.evaluate.report.confusion_view import view_confusion
from cloudft.evaluate.report.loss_curve_svg import draw_loss_curve
from cloudft.evaluate.report.pages import render_template
from cloudft.evaluate.report.source_summary import summarize_sources
from cloudft.evaluate.results import (
    LANGUAGE_MODELING_TASK,
    PREFERENCE_TASK,
    EvaluatedRecord,
    Evaluation,
    describe_engine,
)
from cloudft.jobs.curve_measure import choose_measure
from cloudft.jobs.lifecycle import Job
from cloudft.storage.artifacts import combine_validation
from cloudft.storage.store import utc_now
from cloudft.types import Metric

MAX_CHANGED = 20
"""Records that changed which are shown, of each kind."""
MAX_VALUES = 4
"""Values of a list of the job file that are shown."""
PRIVATE_FIELDS = {"request", "profile", "endpoint_url"}
"""Fields of the job file that may hold private data."""
SHOWN_ELSEWHERE = ("hyperparameters", "name", "base_model", "customization_type")
"""Fields of the job file that other parts of the page show."""
SUMMARY_FIELDS = ("model", "method", "device", "dtype", "trainedParameters", "chatTemplate")

Row = tuple[str, object]
"""A name and a value of a list on the page."""


def render_job_page(
    job: Job,
    points: Sequence[Metric],
    evaluation: Evaluation | None,
    *,
    include_texts: bool = True,
) -> str:
    """Return the page as HTML. Without `include_texts` it contains no text of any record."""
    from markupsafe import Markup

    curve, measure = draw_loss_curve(points), choose_measure(points)
    validation = combine_validation(points)
    changed = _changed_records(evaluation) if evaluation and include_texts else []
    judged = _judged_records(evaluation) if evaluation and include_texts else []
    shared = share_prompts(changed or judged)
    judgments = judged_group(judged, shared, MAX_CHANGED)
    suites = evaluation.get("suites", []) if evaluation else []
    confusion = evaluation.get("confusion") if evaluation else None
    return render_template(
        "report.html",
        {
            "job": job.to_json(),
            "written": utc_now()[:16].replace("T", " ") + " UTC",
            "settings": list(_settings(job)),
            "sources": summarize_sources(job.record.manifest.get("sources", [])),
            # Safe without escaping: the drawing is made here, from numbers only.
            "curves": Markup(curve) if curve else None,
            "measure": measure,
            "best": min(validation, key=lambda p: p.loss) if validation else None,
            "evaluation": evaluation,
            "engine": describe_engine(evaluation) if evaluation else None,
            "benchmarks": [s for s in suites if not s["suite"].startswith(SUITE_PREFIX)],
            "judged": [s for s in suites if s["suite"].startswith(SUITE_PREFIX)],
            "judgments": judgments,
            "lower": LOWER_IS_BETTER,
            "confusion": view_confusion(confusion) if confusion else None,
            "changed": make_groups(changed, shared, MAX_CHANGED, before="Base", after="Tuned"),
            "shared": shared,
            "cost": list(_cost(job)),
            "environment": list(_environment(job, evaluation)),
        },
    )


def _settings(job: Job) -> Iterator[Row]:
    """Yield the hyperparameters in use, and what the job file sets."""
    for name, value in job.record.hyper_parameters.items():
        yield name, f"{value:g}" if isinstance(value, (int, float)) else value
    for name, value in _iter_leaves(job.record.spec, ""):
        if not name.startswith(SHOWN_ELSEWHERE):
            yield name, value


def _iter_leaves(value: Mapping[str, object], prefix: str) -> Iterator[Row]:
    for name, inner in value.items():
        if name in PRIVATE_FIELDS:
            continue
        if isinstance(inner, Mapping):
            yield from _iter_leaves(inner, f"{prefix}{name}.")
        elif inner is not None:
            yield prefix + name, _join(inner) if isinstance(inner, list | tuple) else inner


def _join(values: Sequence[object]) -> str:
    """Return values as one text; of a long list, its first ones and the number of the others."""
    shown = ", ".join(map(str, values[:MAX_VALUES]))
    more = len(values) - MAX_VALUES
    return f"{shown} and {more} more" if more > 0 else shown


def _changed_records(evaluation: Evaluation) -> list[ChangedRecord]:
    """Return the records whose score changed, the largest changes first."""
    if evaluation["task"] in (LANGUAGE_MODELING_TASK, PREFERENCE_TASK):
        return []
    changed = [
        describe_change(
            record,
            record["base"],
            record["tuned"],
            record["tuned"]["score"] - record["base"]["score"],
        )
        for record in evaluation["records"]
    ]
    changed.sort(key=lambda record: -abs(record["gain"]))
    return [record for record in changed if record["gain"]]


def _judged_records(evaluation: Evaluation) -> list[ChangedRecord]:
    """Return the judged records, those first that the judge scores lower than the base's.

    `gain` is the mean difference over the metrics of a judge.
    """
    judged = [
        describe_change(record, record["base"], record["tuned"], _judged_gain(record))
        for record in evaluation["records"]
        if record["tuned"].get("judged") or record["base"].get("judged")
    ]
    return sorted(judged, key=lambda record: record["gain"])


def _judged_gain(record: EvaluatedRecord) -> float:
    before, after = (record[name].get("judged", {}) for name in VARIANTS)
    gains = []
    for metric in before.keys() & after.keys():
        first, second = before[metric]["score"], after[metric]["score"]
        if first is not None and second is not None:
            sign = -1 if JUDGE_METRICS[metric].lower_is_better else 1
            gains.append(sign * (second - first))
    return sum(gains) / len(gains) if gains else 0.0


def _cost(job: Job) -> Iterator[tuple[str, str]]:
    estimate, training = job.record.estimate, job.to_json()["cost"]
    basis = ", estimated" if training["estimated"] else ", by billed seconds"
    for name, amount, suffix in (
        ("training", training["usd"], ", at most" if training.get("atMost") else basis),
        ("storage per month", estimate["usd"].get("storagePerMonth"), ", estimated"),
        ("serving per hour", estimate["usd"].get("servingPerHour"), ", estimated"),
    ):
        yield name, "price unknown" if amount is None else f"{format_usd(amount)}{suffix}"
    source = ", ".join(str(estimate[k]) for k in ("priceSource", "priceDate") if estimate.get(k))
    yield "price source", source


def _environment(job: Job, evaluation: Evaluation | None) -> Iterator[Row]:
    from cloudft import __version__

    summary = job.state.summary
    yield "cloudft", __version__
    for name in SUMMARY_FIELDS:
        if summary.get(name) is not None:
            yield name, summary[name]
    yield "created", job.record.created_at
    if job.state.ended_at:
        yield "ended", job.state.ended_at
    yield "client request token", job.record.token
    identities = evaluation.get("identities") if evaluation else None
    for name, identity in (identities or {}).items():
        if identity:
            yield f"{name} model", identity
