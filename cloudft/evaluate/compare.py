"""Compare several models on the same records: ranking, differences, and records that changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

from cloudft.errors import UsageError
from cloudft.evaluate.diagnostics.answer_format import qualify_verdict
from cloudft.evaluate.inference.cached_inference import BASE, TUNED, Variant
from cloudft.evaluate.judged import compare_judgments, judged_scores, judges_of
from cloudft.evaluate.metrics.intervals import mean_interval
from cloudft.evaluate.metrics.labels import match_label
from cloudft.evaluate.metrics.metric_labels import metric_label
from cloudft.evaluate.metrics.scores import LOWER_IS_BETTER
from cloudft.evaluate.metrics.significance import (
    PairedDifference,
    compare_paired,
    describe_difference,
)
from cloudft.evaluate.metrics.slices import compute_slices
from cloudft.evaluate.results import (
    Delta,
    Effect,
    EvaluatedRecord,
    Evaluation,
    EvaluationWarning,
    JudgmentSummary,
    ScoredAnswer,
    Significance,
    Slice,
    SuiteResult,
    describe_engine,
    make_delta,
)


@dataclass(frozen=True)
class ModelResult:
    """One model's answers: an evaluation, and the variant of it. Cost and time are of training.

    `is_newest` is False for an evaluation that was chosen because its records match.
    """

    name: str
    evaluation: Evaluation
    variant: Variant
    usd: float | None = None
    seconds: float | None = None
    is_newest: bool = True

    @property
    def records(self) -> dict[str, EvaluatedRecord]:
        """Return the evaluation's records by their key, a digest of prompt and reference."""
        return {record["key"]: record for record in self.evaluation["records"]}

    @property
    def engine(self) -> str | None:
        """Return what answered for the model, in words; None for the job's own backend."""
        variants = self.evaluation.get("engine", {}).get("variants", [])
        return describe_engine(self.evaluation) if self.variant in variants else None

    def answers(self, keys: Sequence[str]) -> list[ScoredAnswer]:
        """Return this model's answers to the records with these keys."""
        records = self.records
        return [records[key][self.variant] for key in keys]


class LeaderboardRow(TypedDict):
    """A model with its mean score and 95 % interval.

    `engine` says what answered for it, None for the job's own backend.
    """

    name: str
    job: str
    engine: str | None
    score: float
    low: float | None
    high: float | None
    usd: float | None
    seconds: float | None


class _ChangedFields(TypedDict, total=False):
    judgedBefore: dict[str, JudgmentSummary]
    judgedAfter: dict[str, JudgmentSummary]


class ChangedRecord(_ChangedFields):
    """A record whose score changed; `gain` is positive when it improved.

    It has what a judge said of both answers where there is one.
    """

    key: str
    file: str
    line: int
    prompt: str
    reference: str
    before: str | None
    after: str | None
    gain: float


class Comparison(TypedDict):
    """One model compared with the first."""

    name: str
    against: str
    delta: Delta
    test: str
    pValue: float
    effect: Effect
    verdict: str
    sentence: str
    fixed: list[ChangedRecord]
    broken: list[ChangedRecord]
    slices: list[Slice]
    judged: list[SuiteResult]


class ComparisonReport(TypedDict):
    """The output of `compare`."""

    metric: str
    lowerIsBetter: bool
    n: int
    leaderboard: list[LeaderboardRow]
    comparisons: list[Comparison]
    warnings: list[EvaluationWarning]


def compare_models(results: Sequence[ModelResult]) -> ComparisonReport:
    """Compare each model with the first, record by record, on the records that all of them have.

    p-values of several comparisons are adjusted (Holm 1979). Raises UsageError when the models were
    evaluated with different metrics, or have no record in common.
    """
    metric = _find_common_metric(results)
    keys, warnings = _find_common_records(results)
    lower = metric in LOWER_IS_BETTER
    scores = [[answer["score"] for answer in result.answers(keys)] for result in results]
    differences = [compare_paired(scores[0], other, lower_is_better=lower) for other in scores[1:]]
    adjusted = adjust_holm([difference.p_value for difference in differences])
    return {
        "metric": metric,
        "lowerIsBetter": lower,
        "n": len(keys),
        "leaderboard": _leaderboard(results, scores, lower=lower),
        "comparisons": [
            _compare(results[0], result, keys, metric, replace(difference, p_value=p))
            for result, difference, p in zip(results[1:], differences, adjusted, strict=True)
        ],
        "warnings": warnings,
    }


def adjust_holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted by Holm's step-down method; never above 1."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        # An adjusted p-value is never smaller than that of a smaller p-value.
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def _find_common_metric(results: Sequence[ModelResult]) -> str:
    metrics = {result.evaluation["metric"] for result in results}
    if len(metrics) > 1:
        raise UsageError(
            f"the jobs were evaluated with different metrics: {', '.join(sorted(metrics))}",
            fix="evaluate them as one task: cloudft evaluate JOB --task TASK",
        )
    return metrics.pop()


def _find_common_records(
    results: Sequence[ModelResult],
) -> tuple[list[str], list[EvaluationWarning]]:
    """Return the keys of the records that all models answered, in the order of the first."""
    records = [result.records for result in results]
    keys = [key for key in records[0] if all(key in others for others in records)]
    if not keys:
        raise UsageError(
            "the jobs were evaluated on different records; they have none in common",
            fix="evaluate each on the same file: cloudft evaluate JOB --data FILE",
        )
    warnings: list[EvaluationWarning] = []
    if len(keys) < max(map(len, records)):
        counts = ", ".join(f"{x.name} {len(r)}" for x, r in zip(results, records, strict=True))
        message = f"only {len(keys)} records are common to all models (evaluated: {counts})"
        warnings.append({"code": "DifferentRecords", "message": message})
    warnings += _find_differences(results)
    first_with: dict[str, str] = {}
    for result in results:
        identity = (result.evaluation.get("identities") or {}).get(result.variant)
        if identity and identity in first_with:
            message = f"{first_with[identity]} and {result.name} are the same model"
            warnings.append({"code": "SameModel", "message": message})
        if identity:
            first_with.setdefault(identity, result.name)
    return keys, warnings


def _find_differences(results: Sequence[ModelResult]) -> Iterator[EvaluationWarning]:
    """Yield what differs between the evaluations of a comparison, besides their records."""
    for result in results:
        if not result.is_newest:
            time = result.evaluation.get("createdAt", "an unknown time")
            message = (
                f"{result.name}: its evaluation of {time} is compared, because the newest one is"
                " of other records"
            )
            yield {"code": "EarlierEvaluation", "message": message}
    first = results[0]
    for result in results[1:]:
        one, other = (_decoding(x) for x in (first, result))
        names = [name for name in one if one[name] != other.get(name, one[name])]
        if names:
            changes = ", ".join(f"{name} {one[name]} and {other[name]}" for name in names)
            message = f"{first.name} and {result.name} answered with different settings: {changes}"
            yield {"code": "DifferentDecoding", "message": message}
        if set(first.evaluation.get("labels") or ()) != set(result.evaluation.get("labels") or ()):
            message = f"the answers of {first.name} and {result.name} were scored by other labels"
            yield {"code": "DifferentLabels", "message": message}


def _decoding(result: ModelResult) -> Mapping[str, object]:
    """Return how answers were generated; nothing for answers of another tool."""
    decoding: Mapping[str, object] | None = result.evaluation.get("decoding")
    return decoding or {}


def _leaderboard(
    results: Sequence[ModelResult], scores: Sequence[Sequence[float]], *, lower: bool
) -> list[LeaderboardRow]:
    rows: list[LeaderboardRow] = []
    for result, values in zip(results, scores, strict=True):
        score = make_delta(sum(values) / len(values), mean_interval(values))
        rows.append(
            {
                "name": result.name,
                "job": result.evaluation["job"],
                "engine": result.engine,
                "score": sum(values) / len(values),
                "low": score["low"],
                "high": score["high"],
                "usd": result.usd,
                "seconds": result.seconds,
            }
        )
    return sorted(rows, key=lambda row: row["score"], reverse=not lower)


def _compare(
    first: ModelResult,
    result: ModelResult,
    keys: Sequence[str],
    metric: str,
    difference: PairedDifference,
) -> Comparison:
    lower = metric in LOWER_IS_BETTER
    base, tuned = ([answer["score"] for answer in x.answers(keys)] for x in (first, result))
    significance = _significance(first, result, difference, metric, base, tuned)
    records, labels = first.records, first.evaluation.get("labels")
    record_labels = [
        match_label(records[key]["reference"], labels) if labels else None for key in keys
    ]
    lengths = [len(result.records[key]["prompt"]) for key in keys]
    changed = list(_find_changed(first, result, keys, lower=lower))
    return {
        "name": result.name,
        "against": first.name,
        "delta": make_delta(difference.delta, difference.interval),
        "test": significance["test"],
        "pValue": significance["pValue"],
        "effect": significance["effect"],
        "verdict": significance["verdict"],
        "sentence": significance["sentence"],
        "fixed": [record for record in changed if record["gain"] > 0],
        "broken": [record for record in changed if record["gain"] < 0],
        "slices": compute_slices(record_labels, lengths, base, tuned),
        "judged": list(_compare_judged(first, result, keys)),
    }


def _compare_judged(
    first: ModelResult, result: ModelResult, keys: Sequence[str]
) -> Iterator[SuiteResult]:
    """Yield each metric by which the same judge scored both models."""
    theirs = judges_of(result.evaluation)
    for metric, judge in judges_of(first.evaluation).items():
        if theirs.get(metric) == judge:
            base, tuned = (judged_scores(x.answers(keys), metric) for x in (first, result))
            yield compare_judgments(metric, judge, base, tuned, result.name)


def _significance(
    first: ModelResult,
    result: ModelResult,
    difference: PairedDifference,
    metric: str,
    base: Sequence[float],
    tuned: Sequence[float],
) -> Significance:
    means = sum(base) / len(base), sum(tuned) / len(tuned)
    verdict, sentence = describe_difference(
        difference,
        metric_label(metric),
        *means,
        lower_is_better=metric in LOWER_IS_BETTER,
        interval=difference.interval,
    )
    significance: Significance = {
        "test": difference.test,
        "pValue": difference.p_value,
        "effect": {"name": difference.effect_name, "value": difference.effect},
        "fixed": difference.fixed,
        "broken": difference.broken,
        "verdict": verdict,
        "sentence": sentence.replace("The tuned model", result.name),
    }
    # The diagnostic compares a tuned model with its base only.
    answer_format = result.evaluation.get("pitfalls", {}).get("form")
    if first.variant == BASE and result.variant == TUNED and answer_format:
        return qualify_verdict(significance, answer_format)
    return significance


def _find_changed(
    first: ModelResult, result: ModelResult, keys: Sequence[str], *, lower: bool
) -> Iterator[ChangedRecord]:
    """Yield the records whose score changed."""
    records: Mapping[str, EvaluatedRecord] = result.records
    for key, a, b in zip(keys, first.answers(keys), result.answers(keys), strict=True):
        gain = (a["score"] - b["score"]) if lower else (b["score"] - a["score"])
        if gain:
            yield describe_change(records[key], a, b, gain)


def describe_change(
    record: EvaluatedRecord, before: ScoredAnswer, after: ScoredAnswer, gain: float
) -> ChangedRecord:
    """Return a record with two answers, and what a judge said of them."""
    changed: ChangedRecord = {
        "key": record["key"],
        "file": record["file"],
        "line": record["line"],
        "prompt": record["prompt"],
        "reference": record["reference"],
        "before": before.get("text"),
        "after": after.get("text"),
        "gain": gain,
    }
    if before.get("judged"):
        changed["judgedBefore"] = before["judged"]
    if after.get("judged"):
        changed["judgedAfter"] = after["judged"]
    return changed
