"""Rank jobs by their evaluations: only those that were judged on the same held-out data.

Scores on other records, of another task or by another metric are never in one ranking.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from cloudft.errors import DamagedJob, JobStateConflict, UsageError
from cloudft.evaluate.compare import ComparisonReport, ModelResult, compare_models
from cloudft.evaluate.history import choose_evaluations, load_evaluations
from cloudft.evaluate.inference.cached_inference import BASE, TUNED
from cloudft.evaluate.results import DataSummary, Evaluation, EvaluationWarning
from cloudft.storage.store import JobRecord


@dataclass(frozen=True)
class EvaluatedJob:
    """A job and its evaluations, the newest first. Cost and time are of its training."""

    id: str
    base_model: str
    evaluations: Sequence[Evaluation]
    usd: float | None = None
    seconds: float | None = None
    warnings: Sequence[EvaluationWarning] = ()


@dataclass(frozen=True)
class JudgedOn:
    """What scores must have in common to be compared: the held-out data, the task, the metric."""

    sha256: str
    task: str
    metric: str


@dataclass(frozen=True)
class SeedSpread:
    """The scores of jobs that differ in nothing but their seed; `deviation` is of the sample."""

    jobs: tuple[str, ...]
    mean: float
    deviation: float
    low: float
    high: float


@dataclass(frozen=True)
class Board:
    """A ranking of jobs on the same records, and how each compares with the first of them.

    `is_common_part` is True where only the records that all jobs answered are compared.
    """

    data: DataSummary
    task: str
    report: ComparisonReport
    jobs: tuple[str, ...]
    spreads: tuple[SeedSpread, ...] = ()
    is_common_part: bool = False

    def comparison_of(self, name: str) -> str | None:
        """Return the sentence that compares a model with the first; None for the first."""
        found = (one["sentence"] for one in self.report["comparisons"] if one["name"] == name)
        return next(found, None)


@dataclass(frozen=True)
class Unranked:
    """A job's score that stands alone: no other job was judged on this data."""

    job: str
    data: DataSummary
    task: str
    metric: str
    n: int
    base: float | None
    tuned: float | None


@dataclass(frozen=True)
class Leaderboards:
    """The rankings, those of most jobs first; scores that no ranking has; jobs without any."""

    boards: tuple[Board, ...] = ()
    unranked: tuple[Unranked, ...] = ()
    not_evaluated: tuple[str, ...] = ()


def load_evaluated_job(record: JobRecord, ended_at: str | None = None) -> EvaluatedJob:
    """Return a job with those of its evaluations that can be read; a warning for each other."""
    evaluations: list[Evaluation] = []
    warnings: list[EvaluationWarning] = []
    try:
        evaluations, warnings = load_evaluations(record.folder)
    except JobStateConflict:
        pass  # it was not evaluated
    except DamagedJob as error:
        warnings = [{"code": error.code, "message": error.message}]
    seconds = None
    if ended_at is not None:
        took = datetime.fromisoformat(ended_at) - datetime.fromisoformat(record.created_at)
        seconds = took.total_seconds()
    usd = record.estimate["usd"]["training"]
    return EvaluatedJob(record.id, record.base_model, evaluations, usd, seconds, warnings)


def make_leaderboards(
    jobs: Sequence[EvaluatedJob], repeats: Sequence[Sequence[str]] = ()
) -> Leaderboards:
    """Rank jobs, and compare each with the first, in one board for each data, task and metric.

    `repeats` are groups of jobs that differ in their seed only. Where no board has all jobs, and
    their records overlap, one more board compares them on the records that all of them answered.
    """
    evaluated = [job for job in jobs if job.evaluations]
    newest: dict[JudgedOn, dict[str, Evaluation]] = {}
    for job in evaluated:
        for evaluation in job.evaluations:
            newest.setdefault(_judged_on(evaluation), {}).setdefault(job.id, evaluation)
    by_id = {job.id: job for job in evaluated}
    shared = {key: found for key, found in newest.items() if len(found) > 1}
    boards = [_make_board(found, by_id, repeats) for found in shared.values()]
    if len(evaluated) > 1 and not any(len(board.jobs) == len(evaluated) for board in boards):
        common = _board_of_common_records(evaluated, repeats)
        boards += [common] if common else []
    ranked = {job for board in boards for job in board.jobs}
    boards.sort(key=lambda board: -len(board.jobs))
    return Leaderboards(
        boards=tuple(boards),
        unranked=tuple(_unranked(job) for job in evaluated if job.id not in ranked),
        not_evaluated=tuple(job.id for job in jobs if not job.evaluations),
    )


def _judged_on(evaluation: Evaluation) -> JudgedOn:
    return JudgedOn(evaluation["data"]["sha256"], evaluation["task"], evaluation["metric"])


def _make_board(
    found: Mapping[str, Evaluation],
    jobs: Mapping[str, EvaluatedJob],
    repeats: Sequence[Sequence[str]],
    *,
    is_common_part: bool = False,
) -> Board:
    results = [
        ModelResult(
            name,
            evaluation,
            TUNED,
            jobs[name].usd,
            jobs[name].seconds,
            is_newest=evaluation is jobs[name].evaluations[0],
        )
        for name, evaluation in found.items()
    ]
    report = compare_models([*results, *_base_results(found, jobs)])
    first = next(iter(found.values()))
    scores = {row["name"]: row["score"] for row in report["leaderboard"]}
    spreads = [_spread([name for name in group if name in found], scores) for group in repeats]
    return Board(
        first["data"],
        first["task"],
        report,
        tuple(found),
        tuple(spread for spread in spreads if spread),
        is_common_part,
    )


def _base_results(
    found: Mapping[str, Evaluation], jobs: Mapping[str, EvaluatedJob]
) -> list[ModelResult]:
    """Return the result of each base model once: jobs that tune one model share it."""
    results: dict[str, ModelResult] = {}
    for name, evaluation in found.items():
        identity = (evaluation.get("identities") or {}).get(BASE)
        title = f"{jobs[name].base_model} (base)"
        key = identity or title
        if key not in results:
            results[key] = ModelResult(_unused_name(title, results), evaluation, BASE, 0.0)
    return list(results.values())


def _unused_name(title: str, results: Mapping[str, ModelResult]) -> str:
    """Return a name that no other base has: one alias may name different weights."""
    names = {one.name for one in results.values()}
    return title if title not in names else f"{title} {len(names) + 1}"


def _spread(names: Sequence[str], scores: Mapping[str, float]) -> SeedSpread | None:
    if len(names) < 2:
        return None
    values = [scores[name] for name in names]
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    return SeedSpread(tuple(names), mean, deviation, min(values), max(values))


def _board_of_common_records(
    jobs: Sequence[EvaluatedJob], repeats: Sequence[Sequence[str]]
) -> Board | None:
    """Return a board of the records that all jobs answered, by one metric; None without any."""
    chosen = choose_evaluations([job.evaluations for job in jobs])
    if len({(one["task"], one["metric"]) for one in chosen}) > 1:
        return None
    found = {job.id: evaluation for job, evaluation in zip(jobs, chosen, strict=True)}
    try:
        return _make_board(found, {job.id: job for job in jobs}, repeats, is_common_part=True)
    except UsageError:
        return None  # no record in common


def _unranked(job: EvaluatedJob) -> Unranked:
    newest = job.evaluations[0]
    metric = newest["metric"]
    return Unranked(
        job.id,
        newest["data"],
        newest["task"],
        metric,
        newest["n"],
        newest["base"].get(metric),
        newest["tuned"].get(metric),
    )
