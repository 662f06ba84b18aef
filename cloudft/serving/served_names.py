"""What the models of several jobs are called by requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cloudft.serving.engine_process import ServedJob


def name_models(jobs: Sequence[ServedJob], names: Sequence[str]) -> list[ServedJob]:
    """Return jobs whose tuned models are called by the names of their jobs, in the same order.

    A job is called by its id where another model has its name. The base of all is called as the
    job file has it; by the last part of its path where it is a folder.
    """
    base = jobs[0].base
    if base is not None and Path(base).is_absolute():
        base = Path(base).name
    counts = Counter([base, *names])
    return [
        replace(job, name=name if counts[name] == 1 else job.job_id, base=base)
        for job, name in zip(jobs, names, strict=True)
    ]
