"""What the models of several jobs are called."""

from __future__ import annotations

from pathlib import Path

from cloudft.serving.engine_process import ServedJob
from cloudft.serving.served_names import name_models


def names(base: str, **jobs: str) -> list[tuple[str | None, str | None]]:
    """Return the names of tuned model and base of jobs that are given as id=name."""
    described = [ServedJob(Path("/jobs") / job, job, job, base) for job in jobs]
    return [(job.name, job.base) for job in name_models(described, list(jobs.values()))]


def test_a_job_is_called_by_its_name_and_the_base_by_its_own() -> None:
    assert names("smollm2-135m", a1="router", b2="writer") == [
        ("router", "smollm2-135m"),
        ("writer", "smollm2-135m"),
    ]
    assert names("/models/mine", a1="router") == [("router", "mine")]


def test_a_name_that_two_models_have_is_replaced_by_the_job_s_id() -> None:
    assert names("base", a1="router", b2="router", c3="base") == [
        ("a1", "base"),
        ("b2", "base"),
        ("c3", "base"),
    ]
