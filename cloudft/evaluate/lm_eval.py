"""Run tasks of EleutherAI's lm-eval on base and tuned model: `--suite lm-eval:TASK`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cloudft.backends.base import Backend
from cloudft.backends.capabilities import ProgressCallback, SupportsLmEval
from cloudft.errors import UsageError
from cloudft.evaluate.metrics.significance import compare_paired, describe_difference
from cloudft.evaluate.results import SuiteResult
from cloudft.storage.store import JobRecord

SUITE_PREFIX = "lm-eval:"
LOWER_IS_BETTER_AFFIXES = ("perplexity", "bits_per_byte", "brier_score", "ter")
"""lm-eval figures where lower is better begin or end with one of these."""


def parse_suite_names(names: Sequence[str]) -> list[str]:
    """Return the tasks that `--suite` names. Raises UsageError."""
    for name in names:
        if not name.startswith(SUITE_PREFIX) or name == SUITE_PREFIX:
            raise UsageError(
                f"unknown suite {name!r}",
                field="--suite",
                fix="use lm-eval:TASK, for example lm-eval:arc_easy; `lm-eval ls tasks` lists the"
                " tasks.",
            )
    return [name.removeprefix(SUITE_PREFIX) for name in names]


def run_suites(
    record: JobRecord,
    backend: Backend,
    names: Sequence[str],
    *,
    include: Path | None,
    limit: int | None,
    progress: ProgressCallback,
) -> list[SuiteResult]:
    """Return each figure of each task for both models, compared record by record.

    Raises UsageError for a backend that can't run lm-eval, TrainerError when a task fails.
    """
    tasks = parse_suite_names(names)
    if not isinstance(backend, SupportsLmEval):
        raise UsageError(
            f"lm-eval needs local models, and this job is on {record.backend}",
            fix="submit the same job with --backend local.",
        )
    job_id = record.backend_job_id or record.id
    metrics = backend.run_lm_eval(job_id, tasks, include=include, limit=limit, progress=progress)
    return [
        _compare_figure(metric.task, metric.figure, metric.base, metric.tuned)
        for metric in metrics
        if len(metric.base) > 0
    ]


def _compare_figure(
    task: str, figure: str, base: Sequence[float], tuned: Sequence[float]
) -> SuiteResult:
    lower = figure.startswith(LOWER_IS_BETTER_AFFIXES) or figure.endswith(LOWER_IS_BETTER_AFFIXES)
    difference = compare_paired(base, tuned, lower_is_better=lower)
    base_mean, tuned_mean = sum(base) / len(base), sum(tuned) / len(tuned)
    verdict, sentence = describe_difference(
        difference, figure, base_mean, tuned_mean, lower_is_better=lower
    )
    return {
        "suite": f"{SUITE_PREFIX}{task}",
        "figure": figure,
        "n": len(base),
        "base": base_mean,
        "tuned": tuned_mean,
        "delta": {"value": difference.delta, "low": difference.low, "high": difference.high},
        "pValue": difference.p_value,
        "verdict": verdict,
        "sentence": sentence,
    }
