"""Format a job and its loss curve as text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from cloudft.cli.number_format import format_local_time
from cloudft.types import Metric


def job_page(job: Mapping[str, Any]) -> str:
    """Return one job as lines of text, from the JSON that `status` prints."""
    progress = job["progress"] or {}
    summary = job["summary"]
    details = ", ".join(
        f"{name.removesuffix('Details')} {value}" for name, value in job["statusDetails"].items()
    )
    rows: list[tuple[str, Any]] = [
        ("job", job["id"]),
        ("status", f"{job['status']} ({details})"),
        ("backend", job["backend"]),
        ("type", job["customizationType"]),
        ("base model", _base_model_text(job)),
        ("settings", ", ".join(f"{k} {v:g}" for k, v in job["hyperParameters"].items())),
        ("data", _data_text(job["manifest"])),
        ("queued", summary.get("queuedIn")),
        ("model", _imported_model_text(summary)),
        ("activity", summary.get("activity") if job["endedAt"] is None else None),
        ("step", f"{progress['step']} of {progress['totalSteps']}" if progress else None),
        ("loss", f"{progress['loss']:.4f}" if progress.get("loss") is not None else None),
        ("stopped", _early_stop_text(job)),
        ("validation", _validation_text(summary)),
        ("cost", _cost_text(job)),
        ("created", format_local_time(job["createdAt"])),
        ("ended", format_local_time(job["endedAt"])),
        ("artifacts", job["artifacts"]),
        ("failure", job["failureMessage"]),
    ]
    return "\n".join(f"{name + ':':<12}{value}" for name, value in rows if value is not None)


def _cost_text(job: Mapping[str, Any]) -> str | None:
    from cloudft.catalogue.cost import format_usd

    usd, seconds = job["cost"]["usd"], job["summary"].get("billableSeconds")
    billed = f", {seconds} s billed" if seconds is not None else ""
    if usd is None:
        return f"no price is known{billed}"
    if not job["cost"]["estimated"]:
        return f"{format_usd(usd)} of training{billed}"
    bound = "at most " if job["cost"].get("atMost") else ""
    return f"{bound}{format_usd(usd)} of training, estimated{billed}" if usd else None


def _early_stop_text(job: Mapping[str, Any]) -> str | None:
    """Return why training ended before its last step; None if it did not."""
    progress = job["progress"]
    if not job["summary"].get("stoppedEarly") or not progress:
        return None
    return (
        f"early, after step {progress['step']} of {progress['totalSteps']}: the validation loss no"
        " longer improved (early_stopping in the job file)"
    )


def _imported_model_text(summary: Mapping[str, Any]) -> str | None:
    model, units = summary.get("importedModel"), summary.get("unitsPerCopy")
    if model is None or units is None:
        return model
    return f"{model} ({units} x custom model unit {summary.get('unitsVersion')} per copy)"


def _base_model_text(job: Mapping[str, Any]) -> str:
    trained = job["summary"].get("model")
    base: str = job["baseModel"]
    return base if trained in (None, base) else f"{base} (trained here: {trained})"


def _data_text(manifest: Mapping[str, Any]) -> str:
    parts = [f"{file['records']} {role}" for role, file in manifest["files"].items()]
    return f"{', '.join(parts)} (sha256 {manifest['sha256'][:12]})"


def _validation_text(summary: Mapping[str, Any]) -> str | None:
    base, tuned = summary.get("base"), summary.get("tuned")
    if not base:
        return None
    text = f"loss {base['validationLoss']:.4f} (perplexity {base['perplexity']:.2f}) before"
    if tuned:
        text += f", {tuned['validationLoss']:.4f} ({tuned['perplexity']:.2f}) after"
    return text


def metric_rows(metrics: Iterable[Metric]) -> Iterable[tuple[Any, ...]]:
    """Yield the points of a loss curve as table rows."""
    for point in metrics:
        yield (
            point.step,
            point.epoch,
            point.split,
            f"{point.loss:.4f}",
            f"{point.perplexity:.2f}" if math.isfinite(point.perplexity) else "inf",
            f"{point.learning_rate:.3g}" if point.learning_rate is not None else "",
            f"{point.tokens_per_second:.0f}" if point.tokens_per_second else "",
        )
