"""Format a job and its loss curve as text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cloudft.cli.number_format import format_local_time
from cloudft.jobs.curve_measure import choose_measure
from cloudft.types import JobState, Metric, TrainingProgress, to_camel_case, validation_role

if TYPE_CHECKING:
    from cloudft.jobs.lifecycle import Job


def job_page(job: Job) -> str:
    """Return one job as lines of text."""
    record, state, summary = job.record, job.state, job.state.summary
    progress = state.progress
    details = ", ".join(
        f"{to_camel_case(name).removesuffix('Details')} {value}"
        for name, value in vars(state.status_details).items()
    )
    reward = progress.reward if progress else None
    loss = progress.loss if progress and reward is None else None
    rows: list[tuple[str, object]] = [
        ("job", record.id),
        ("status", f"{state.status} ({details})"),
        ("backend", record.backend),
        ("type", record.customization_type),
        ("base model", _base_model_text(record.base_model, summary.get("model"))),
        ("settings", ", ".join(f"{k} {v:g}" for k, v in record.hyper_parameters.items())),
        ("data", _logs_text(record.spec) or _data_text(record.manifest)),
        ("queued", summary.get("queuedIn")),
        ("model", _imported_model_text(summary)),
        ("activity", summary.get("activity") if state.ended_at is None else None),
        ("step", _step_text(progress)),
        ("loss", f"{loss:.4f}" if loss is not None else None),
        ("reward", f"{reward:.4f} in the last step" if reward is not None else None),
        ("stopped", _early_stop_text(state)),
        ("validation", _validation_text(summary)),
        ("sets", _validation_sets_text(summary)),
        ("warning", _hacking_text(summary)),
        ("cost", _cost_text(job)),
        ("created", format_local_time(record.created_at)),
        ("ended", format_local_time(state.ended_at)),
        ("artifacts", state.artifacts),
        ("weights", summary.get("weights")),
        ("package", summary.get("modelPackage")),
        ("failure", state.failure_message),
    ]
    return "\n".join(f"{name + ':':<12}{value}" for name, value in rows if value is not None)


def _step_text(progress: TrainingProgress | None) -> str | None:
    if progress is None or not progress.total_steps:  # a teacher answers before the first step
        return None
    return f"{progress.step} of {progress.total_steps}"


def _cost_text(job: Job) -> str | None:
    from cloudft.catalogue.cost import format_usd

    cost, summary = job.to_json()["cost"], job.state.summary
    seconds, tokens = summary.get("billableSeconds"), summary.get("billableTokens")
    usd, billed = cost["usd"], f", {seconds} s billed" if seconds is not None else ""
    if tokens is not None:
        billed = f", {tokens:,} tokens billed"
    if usd is None:
        return f"no price is known{billed}"
    if not cost["estimated"]:
        return f"{format_usd(usd)} of training{billed}"
    bound = "at most " if cost.get("atMost") else ""
    return f"{bound}{format_usd(usd)} of training, estimated{billed}" if usd else None


def _early_stop_text(state: JobState) -> str | None:
    """Return why training ended before its last step; None if it did not."""
    progress = state.progress
    if not state.summary.get("stoppedEarly") or progress is None:
        return None
    reason = state.summary.get("stopReason") or (
        "the validation loss no longer improved (early_stopping in the job file)"
    )
    return f"early, after step {progress.step} of {progress.total_steps}: {reason}"


def _imported_model_text(summary: Mapping[str, Any]) -> str | None:
    model, units = summary.get("importedModel"), summary.get("unitsPerCopy")
    if model is None or units is None:
        return model
    return f"{model} ({units} x custom model unit {summary.get('unitsVersion')} per copy)"


def _base_model_text(base: str, trained: str | None) -> str:
    return base if trained in (None, base) else f"{base} (trained here: {trained})"


def _logs_text(spec: Mapping[str, Any]) -> str | None:
    """Return which invocation logs a job trains on; None for a job with files."""
    logs = (spec.get("data") or {}).get("invocation_logs")
    return f"invocation logs at {logs['s3_uri']}" if logs else None


def _data_text(manifest: Mapping[str, Any]) -> str:
    parts = [f"{file['records']} {role}" for role, file in manifest["files"].items()]
    return f"{', '.join(parts)} (sha256 {manifest['sha256'][:12]})"


def _validation_text(summary: Mapping[str, Any]) -> str | None:
    base, tuned = summary.get("base"), summary.get("tuned")
    if not base:
        return None
    if "reward" in base:
        return _reward_text(base["reward"], tuned)
    text = f"loss {base['validationLoss']:.4f} (perplexity {base['perplexity']:.2f}) before"
    if tuned:
        text += f", {tuned['validationLoss']:.4f} ({tuned['perplexity']:.2f}) after"
    return text


def _reward_text(before: float, tuned: Mapping[str, Any] | None) -> str:
    """Return the mean reward on held-out prompts, with the interval of its gain."""
    text = f"reward {before:.4f} before"
    if tuned:
        text += f", {tuned['reward']:.4f} after"
        if "rewardGainInterval" in tuned:
            low, high = tuned["rewardGainInterval"]
            text += f" (gain {tuned['rewardGain']:+.4f}, 95 % interval {low:+.4f} to {high:+.4f})"
    return text


def _hacking_text(summary: Mapping[str, Any]) -> str | None:
    """Return the sign of reward hacking that a job has shown; None if it has shown none."""
    found = summary.get("rewardHacking")
    if not found:
        return None
    return (
        f"sign of reward hacking: the reward rose {found['rewardBefore']:.3f} to"
        f" {found['rewardAfter']:.3f} with the answers' length ({found['lengthBefore']:.0f} to"
        f" {found['lengthAfter']:.0f} tokens, correlation {found['correlation']:.2f})"
    )


def _validation_sets_text(summary: Mapping[str, Any]) -> str | None:
    """Return the loss on each of several validation sets, before and after; None for one set."""
    base, tuned = ((summary.get(k) or {}).get("validationSets") or {} for k in ("base", "tuned"))
    tuned = tuned or summary.get("validationSetLosses") or {}
    if not base and not tuned:
        return None
    parts = []
    for name in sorted(base | tuned):
        before = f" {base[name]:.4f} before" if name in base else ""
        after = f" {tuned[name]:.4f} after" if name in tuned else ""
        parts.append(f"{name}{before}{',' if before and after else ''}{after}")
    return "; ".join(parts)


METRIC_COLUMNS = ("STEP", "EPOCH", "SPLIT", "LOSS", "PERPLEXITY", "RATE", "TOKENS/S")
LOSS_COLUMNS = ("LOSS", "PERPLEXITY")
MEASURE_COLUMNS = {
    "reward": ("REWARD", ".4f"),
    "kl": ("KL", ".4f"),
    "response_length": ("LENGTH", ".1f"),
    "entropy": ("ENTROPY", ".3f"),
    "dead_groups": ("DEAD", ".2f"),
    "clip_fraction": ("CLIPPED", ".3f"),
    "chosen_reward": ("CHOSEN", ".4f"),
    "rejected_reward": ("REJECTED", ".4f"),
    "reward_margin": ("MARGIN", ".4f"),
    "preference_accuracy": ("ACCURACY", ".3f"),
}
"""Heading and number format of what only some jobs measure, by the field of a point: of jobs that
learn from rewards, and of those that learn from pairs of answers."""


def metric_columns(metrics: Sequence[Metric]) -> tuple[str, ...]:
    """Return the columns of a table of these points; no loss where the reward is what counts."""
    is_reward = choose_measure(metrics).is_reward
    columns = [one for one in METRIC_COLUMNS if not (is_reward and one in LOSS_COLUMNS)]
    return (*columns, *(MEASURE_COLUMNS[name][0] for name in _measures(metrics)))


def metric_rows(metrics: Sequence[Metric]) -> Iterable[tuple[object, ...]]:
    """Yield the points of a curve as table rows."""
    measures, is_reward = _measures(metrics), choose_measure(metrics).is_reward
    for point in metrics:
        yield (
            point.step,
            point.epoch,
            point.split if point.validation_set is None else validation_role(point.validation_set),
            *(() if is_reward else _loss_texts(point)),
            f"{point.learning_rate:.3g}" if point.learning_rate is not None else "",
            f"{point.tokens_per_second:.0f}" if point.tokens_per_second else "",
            *(_measure_text(point, name) for name in measures),
        )


def _loss_texts(point: Metric) -> tuple[str, str]:
    perplexity = f"{point.perplexity:.2f}" if math.isfinite(point.perplexity) else "inf"
    return f"{point.loss:.4f}", perplexity


def _measures(metrics: Sequence[Metric]) -> list[str]:
    """Return the fields of MEASURE_COLUMNS that at least one point has."""
    return [n for n in MEASURE_COLUMNS if any(getattr(point, n) is not None for point in metrics)]


def _measure_text(point: Metric, name: str) -> str:
    value = getattr(point, name)
    return "" if value is None else format(value, MEASURE_COLUMNS[name][1])
