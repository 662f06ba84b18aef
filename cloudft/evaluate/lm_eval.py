"""Run tasks of EleutherAI's lm-eval on base and tuned model: `--suite lm-eval:TASK`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cloudft.backends.base import Backend
from cloudft.backends.capabilities import ProgressCallback, SupportsLmEval
from cloudft.errors import UsageError
from cloudft.evaluate.metrics.significance import compare_paired, describe_difference
from cloudft.evaluate.results import SuiteResult, make_delta
from cloudft.inference import LmEvalMetric
from cloudft.storage.store import JobRecord

SUITE_PREFIX = "lm-eval:"
UNTESTED = "not tested"
"""The verdict on a figure that has no scores of single documents."""


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
    return [_compare_figure(metric) for metric in metrics]


def _compare_figure(metric: LmEvalMetric) -> SuiteResult:
    """Return one figure for both models; by its documents where it is the mean of their scores."""
    result: SuiteResult = {
        "suite": f"{SUITE_PREFIX}{metric.task}",
        "figure": metric.figure,
        "n": metric.records,
        "base": metric.base,
        "tuned": metric.tuned,
        "higherIsBetter": metric.higher_is_better,
        "delta": make_delta(None, None),
    }
    if metric.base is None or metric.tuned is None:
        return {**result, "verdict": UNTESTED, "sentence": "lm-eval computed no number."}
    change = metric.tuned - metric.base
    if not metric.base_scores:
        sentence = (
            f"Not tested: {metric.figure} {metric.tuned:.3f} against {metric.base:.3f},"
            f" {change:+.3f}; lm-eval computes it from all documents together."
        )
        return {
            **result,
            "delta": make_delta(change, None),
            "verdict": UNTESTED,
            "sentence": sentence,
        }
    higher = metric.higher_is_better
    lower = None if higher is None else not higher
    difference = compare_paired(
        metric.base_scores, metric.tuned_scores, lower_is_better=bool(lower)
    )
    verdict, sentence = describe_difference(
        difference,
        metric.figure,
        metric.base,
        metric.tuned,
        lower_is_better=lower,
        interval=difference.interval,
    )
    return {
        **result,
        "delta": make_delta(change, difference.interval),
        "pValue": difference.p_value,
        "verdict": verdict,
        "sentence": sentence,
    }
