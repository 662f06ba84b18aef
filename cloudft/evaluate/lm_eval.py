"""Benchmarks of others, run on base and tuned model: `--suite lm-eval:TASK`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cloudft.backends.base import Backend
from cloudft.backends.capabilities import ProgressCallback, SupportsLmEval
from cloudft.errors import UsageError
from cloudft.evaluate.metrics.significance import compare_paired, describe_difference
from cloudft.storage.store import JobRecord

SUITE_PREFIX = "lm-eval:"
LOWER_IS_BETTER_AFFIXES = ("perplexity", "bits_per_byte", "brier_score", "ter")
"""Figures of lm-eval of which less is better begin or end with these."""


def parse_suite_names(names: Sequence[str]) -> list[str]:
    """The tasks that `--suite` names. Raises UsageError."""
    for name in names:
        if not name.startswith(SUITE_PREFIX) or name == SUITE_PREFIX:
            raise UsageError(
                f"there is no suite {name!r}",
                field="--suite",
                fix="lm-eval:TASK, such as lm-eval:arc_easy; `lm-eval ls tasks` lists them.",
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
) -> list[dict[str, Any]]:
    """Each figure of each task for both models, paired record by record.

    Raises UsageError for a backend that runs none, TrainerError when a task can't be run.
    """
    tasks = parse_suite_names(names)
    if not isinstance(backend, SupportsLmEval):
        raise UsageError(
            f"lm-eval runs on local models, and this job is on {record.backend}",
            fix="submit the same job with --backend local.",
        )
    job_id = record.backend_job_id or record.id
    found = backend.run_lm_eval(job_id, tasks, include=include, limit=limit, progress=progress)
    return [
        _compare_figure(one.task, one.figure, one.base, one.tuned)
        for one in found
        if len(one.base) > 0
    ]


def _compare_figure(task: str, figure: str, base: Sequence[float], tuned: Sequence[float]) -> Any:
    lower = figure.startswith(LOWER_IS_BETTER_AFFIXES) or figure.endswith(LOWER_IS_BETTER_AFFIXES)
    difference = compare_paired(base, tuned, lower_is_better=lower)
    means = sum(base) / len(base), sum(tuned) / len(tuned)
    word, sentence = describe_difference(difference, figure, *means, lower_is_better=lower)
    return {
        "suite": f"{SUITE_PREFIX}{task}",
        "figure": figure,
        "n": len(base),
        "base": means[0],
        "tuned": means[1],
        "delta": {"value": difference.delta, "low": difference.low, "high": difference.high},
        "pValue": difference.p_value,
        "verdict": word,
        "sentence": sentence,
    }
