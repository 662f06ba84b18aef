"""Several models on the same records: who leads, by how much, and which records changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cloudft.errors import UsageError
from cloudft.evaluate.diagnostics.answer_format import qualify_verdict
from cloudft.evaluate.inference.cached_inference import BASE, TUNED
from cloudft.evaluate.metrics.scores import LOWER_IS_BETTER, extract_label
from cloudft.evaluate.metrics.significance import (
    PairedDifference,
    bootstrap_mean_interval,
    compare_paired,
    describe_difference,
)
from cloudft.evaluate.metrics.slices import compute_slices


@dataclass(frozen=True)
class ModelResult:
    """One model's answers: an evaluation, and which of its two models is meant."""

    name: str
    evaluation: Mapping[str, Any]
    variant: str
    usd: float | None = None
    seconds: float | None = None

    @property
    def records(self) -> dict[str, Mapping[str, Any]]:
        """The evaluation's records, by what they ask and want."""
        return {record["key"]: record for record in self.evaluation["records"]}


def compare_models(results: Sequence[ModelResult]) -> dict[str, Any]:
    """Each side against the first, record by record, on the records that all of them have.

    p-values of several comparisons are Holm's (Holm 1979). Raises UsageError when the sides were
    evaluated by different metrics, or have no record in common.
    """
    metric, keys, warnings = _find_common_records(results)
    lower = metric in LOWER_IS_BETTER
    scores = {s.name: [s.records[key][s.variant]["score"] for key in keys] for s in results}
    first = results[0]
    found = [
        compare_paired(scores[first.name], scores[side.name], lower_is_better=lower)
        for side in results[1:]
    ]
    adjusted = adjust_holm([difference.p_value for difference in found])
    return {
        "metric": metric,
        "lowerIsBetter": lower,
        "n": len(keys),
        "leaderboard": _leaderboard(results, scores, lower=lower),
        "comparisons": [
            _comparison(first, side, keys, scores, replace(one, p_value=p), metric, lower)
            for side, one, p in zip(results[1:], found, adjusted, strict=True)
        ],
        "warnings": warnings,
    }


def adjust_holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted for their number, step down; never above 1."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def _find_common_records(
    sides: Sequence[ModelResult],
) -> tuple[str, list[str], list[dict[str, str]]]:
    metrics = {side.evaluation["metric"] for side in sides}
    if len(metrics) > 1:
        raise UsageError(
            f"the jobs were judged by different metrics: {', '.join(sorted(metrics))}",
            fix="evaluate them as one task: cloudft evaluate JOB --task TASK",
        )
    keys = [key for key in sides[0].records if all(key in side.records for side in sides)]
    if not keys:
        raise UsageError(
            "the jobs were evaluated on different records; none is common to all",
            fix="evaluate each on the same file: cloudft evaluate JOB --data FILE",
        )
    warnings = []
    most = max(len(side.records) for side in sides)
    if len(keys) < most:
        message = f"only {len(keys)} records are common to all; up to {most} were evaluated"
        warnings.append({"code": "DifferentRecords", "message": message})
    seen: dict[str, str] = {}
    for side in sides:
        identity = (side.evaluation.get("identities") or {}).get(side.variant)
        if identity and identity in seen:
            message = f"{seen[identity]} and {side.name} are one and the same model"
            warnings.append({"code": "SameModel", "message": message})
        if identity:
            seen.setdefault(identity, side.name)
    return str(metrics.pop()), keys, warnings


def _leaderboard(
    sides: Sequence[ModelResult], scores: Mapping[str, Sequence[float]], *, lower: bool
) -> list[dict[str, Any]]:
    import numpy as np

    rows = []
    for side in sides:
        low, high = bootstrap_mean_interval(np.asarray(scores[side.name], float))
        mean = sum(scores[side.name]) / len(scores[side.name])
        values = {"score": mean, "low": low, "high": high, "usd": side.usd, "seconds": side.seconds}
        rows.append({"name": side.name, "job": side.evaluation["job"], **values})
    return sorted(rows, key=lambda row: row["score"], reverse=not lower)


def _comparison(
    first: ModelResult,
    side: ModelResult,
    keys: Sequence[str],
    scores: Mapping[str, Sequence[float]],
    difference: PairedDifference,
    metric: str,
    lower: bool,
) -> dict[str, Any]:
    base, tuned = scores[first.name], scores[side.name]
    means = sum(base) / len(base), sum(tuned) / len(tuned)
    word, sentence = describe_difference(difference, metric, *means, lower_is_better=lower)
    ours, theirs = first.records, side.records
    labels = first.evaluation.get("labels")
    named = [extract_label(ours[key]["reference"], labels) if labels else None for key in keys]
    flips = list(_flips(first, side, keys, lower=lower))
    told = {"verdict": word, "sentence": sentence.replace("The tuned model", side.name)}
    if first.variant == BASE and side.variant == TUNED and (form := _answer_format_of(side)):
        told = qualify_verdict(told, form)
    return {
        "name": side.name,
        "against": first.name,
        "delta": {"value": difference.delta, "low": difference.low, "high": difference.high},
        "test": difference.test,
        "pValue": difference.p_value,
        "effect": {"name": difference.effect_name, "value": difference.effect},
        **told,
        "fixed": [flip for flip in flips if flip["gain"] > 0],
        "broken": [flip for flip in flips if flip["gain"] < 0],
        "slices": compute_slices(named, [len(theirs[key]["prompt"]) for key in keys], base, tuned),
    }


def _answer_format_of(side: ModelResult) -> Mapping[str, Any] | None:
    """What the side's own evaluation found of its answers' form, against the base model."""
    form: Mapping[str, Any] | None = side.evaluation.get("pitfalls", {}).get("form")
    return form


def _flips(
    first: ModelResult, side: ModelResult, keys: Sequence[str], *, lower: bool
) -> Iterator[dict[str, Any]]:
    """The records whose score changed, by how much for the better."""
    ours, theirs = first.records, side.records
    for key in keys:
        a, b = ours[key][first.variant], theirs[key][side.variant]
        gain = (a["score"] - b["score"]) if lower else (b["score"] - a["score"])
        if gain:
            yield {
                "key": key,
                "file": theirs[key]["file"],
                "line": theirs[key]["line"],
                "prompt": theirs[key]["prompt"],
                "reference": theirs[key]["reference"],
                "before": a.get("text"),
                "after": b.get("text"),
                "gain": gain,
            }
