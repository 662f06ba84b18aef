"""Benchmarks of others, run on base and tuned model: `--suite lm-eval:TASK`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cloudft.backends.base import Backend, Benchmarks, Progress
from cloudft.errors import UsageError
from cloudft.evaluate.statistics import paired, verdict
from cloudft.store import Record

HARNESS = "lm-eval:"
LOWER = ("perplexity", "bits_per_byte", "brier_score", "ter")
"""Figures of lm-eval of which less is better begin or end with these."""


def tasks_of(names: Sequence[str]) -> list[str]:
    """The tasks that `--suite` names. Raises UsageError."""
    for name in names:
        if not name.startswith(HARNESS) or name == HARNESS:
            raise UsageError(
                f"there is no suite {name!r}",
                field="--suite",
                fix="lm-eval:TASK, such as lm-eval:arc_easy; `lm-eval ls tasks` lists them.",
            )
    return [name.removeprefix(HARNESS) for name in names]


def suites(
    record: Record,
    backend: Backend,
    names: Sequence[str],
    *,
    include: Path | None,
    limit: int | None,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Each figure of each task for both models, paired record by record.

    Raises UsageError for a backend that runs none, TrainerError when a task can't be run.
    """
    tasks = tasks_of(names)
    if not isinstance(backend, Benchmarks):
        raise UsageError(
            f"lm-eval runs on local models, and this job is on {record.backend}",
            fix="submit the same job with --backend local.",
        )
    job_id = record.backend_job_id or record.id
    found = backend.benchmark(job_id, tasks, include=include, limit=limit, progress=progress)
    return [
        _compared(one.task, one.figure, one.base, one.tuned) for one in found if len(one.base) > 0
    ]


def _compared(task: str, figure: str, base: Sequence[float], tuned: Sequence[float]) -> Any:
    lower = figure.startswith(LOWER) or figure.endswith(LOWER)
    difference = paired(base, tuned, lower_is_better=lower)
    means = sum(base) / len(base), sum(tuned) / len(tuned)
    word, sentence = verdict(difference, figure, *means, lower_is_better=lower)
    return {
        "suite": f"{HARNESS}{task}",
        "figure": figure,
        "n": len(base),
        "base": means[0],
        "tuned": means[1],
        "delta": {"value": difference.delta, "low": difference.low, "high": difference.high},
        "pValue": difference.p_value,
        "verdict": word,
        "sentence": sentence,
    }
