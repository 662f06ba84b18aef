"""What one page says of a job: as resolved, its data, curves, evaluation, cost and origin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cloudft.catalogue.cost import format_usd
from cloudft.evaluate.metrics.scores import LOWER_IS_BETTER
from cloudft.evaluate.report.loss_curve_svg import draw_loss_curve
from cloudft.evaluate.report.pages import render_template
from cloudft.jobs.lifecycle import Job
from cloudft.storage.store import utc_now
from cloudft.types import Metric

MAX_FLIPS = 20
"""So many records that changed are shown, of each kind."""
PRIVATE_FIELDS = {"request", "profile", "endpoint_url"}
"""Fields of the job file that may hold what is nobody else's business."""


def render_job_page(
    job: Job,
    points: Sequence[Metric],
    evaluation: Mapping[str, Any] | None,
    *,
    include_texts: bool = True,
) -> str:
    """The whole page. Without `texts`, no record's text stands in it."""
    from markupsafe import Markup

    curve = draw_loss_curve(points)
    validation = [p for p in points if p.split == "validation"]
    value = job.to_json()
    return render_template(
        "report.html",
        {
            "job": value,
            "written": utc_now()[:16].replace("T", " ") + " UTC",
            "settings": list(_settings(job)),
            "curves": Markup(curve) if curve else None,  # made here, of numbers alone
            "best": min(validation, key=lambda p: p.loss) if validation else None,
            "evaluation": evaluation,
            "lower": LOWER_IS_BETTER,
            "flips": _flips(evaluation) if evaluation and include_texts else [],
            "cost": list(_cost(job)),
            "environment": list(_environment(job, evaluation)),
        },
    )


def _settings(job: Job) -> Iterator[tuple[str, Any]]:
    """The job as resolved: what was given, and the hyperparameters that are used."""
    for name, value in job.record.hyper_parameters.items():
        yield name, f"{value:g}" if isinstance(value, (int, float)) else value
    for name, value in _iter_leaves(job.record.spec, ""):
        if not name.startswith(("hyperparameters", "name", "base_model", "customization_type")):
            yield name, value


def _iter_leaves(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        if name in PRIVATE_FIELDS:
            continue
        if isinstance(inner, Mapping):
            yield from _iter_leaves(inner, f"{prefix}{name}.")
        elif inner is not None:
            yield prefix + name, ", ".join(map(str, inner)) if isinstance(inner, list) else inner


def _flips(evaluation: Mapping[str, Any]) -> list[tuple[str, list[dict[str, Any]], int]]:
    """What got better and what got worse, the largest changes first."""
    if evaluation["task"] == "language-modelling":
        return []
    changed = [
        {
            "prompt": r["prompt"],
            "reference": r["reference"],
            "before": r["base"]["text"],
            "after": r["tuned"]["text"],
            "gain": r["tuned"]["score"] - r["base"]["score"],
        }
        for r in evaluation["records"]
    ]
    changed.sort(key=lambda row: -abs(row["gain"]))
    better = [row for row in changed if row["gain"] > 0]
    worse = [row for row in changed if row["gain"] < 0]
    return [
        ("records got worse", worse[:MAX_FLIPS], len(worse)),
        ("records got better", better[:MAX_FLIPS], len(better)),
    ]


def _cost(job: Job) -> Iterator[tuple[str, str]]:
    estimate, training = job.record.estimate, job.to_json()["cost"]
    told = ", estimated" if training["estimated"] else ", by the seconds that were billed"
    for name, amount, how in (
        ("training", training["usd"], ", at most" if training.get("atMost") else told),
        ("storage a month", estimate["usd"].get("storagePerMonth"), ", estimated"),
        ("serving an hour", estimate["usd"].get("servingPerHour"), ", estimated"),
    ):
        yield name, "no price is known" if amount is None else f"{format_usd(amount)}{how}"
    source = ", ".join(str(estimate[k]) for k in ("priceSource", "priceDate") if estimate.get(k))
    yield "by", source


def _environment(job: Job, evaluation: Mapping[str, Any] | None) -> Iterator[tuple[str, Any]]:
    from cloudft import __version__

    summary = job.state.summary
    yield "cloudft", __version__
    for name in ("model", "method", "device", "dtype", "trainedParameters", "chatTemplate"):
        if summary.get(name) is not None:
            yield name, summary[name]
    yield "created", job.record.created_at
    if job.state.ended_at:
        yield "ended", job.state.ended_at
    yield "token of the request", job.record.token
    identities = (evaluation or {}).get("identities") or {}
    for name, identity in identities.items():
        if identity:
            yield f"{name} model", identity
