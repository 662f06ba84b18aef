"""The local backend with jobs that learn from rewards."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import preloaded
import pytest
import reinforcement_jobs as jobs
from job_files import write_job_file
from shared import shared_root
from suite import BackendSuite, Workbench, finished

from cloudft.backends.base import StagedJob
from cloudft.backends.local.backend import LocalBackend
from cloudft.jobs import prepare
from cloudft.spec.load import load_job
from cloudft.storage.home import Home

SHORT: dict[str, Any] = {
    "grader": jobs.PAYS_FOR_A_CAPITAL,
    "records": jobs.prompts(12),
    "validation": jobs.prompts(4),
    "hyperparameters": {"epochCount": 3, "learningRate": 5e-2},
}
LONG: dict[str, Any] = {
    "grader": jobs.PAYS_AT_RANDOM,
    "records": jobs.prompts(40),
    "hyperparameters": {"epochCount": 1000, "learningRate": 1e-6},
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Workbench]:
    """Yield one home for all workers, which submit to it side by side."""
    root = shared_root(tmp_path_factory, "conformance-local-reinforcement")
    home = Home(root / "home")
    backend = LocalBackend(home)

    def staged(name: str, options: Mapping[str, Any]) -> StagedJob:
        folder = tmp_path_factory.mktemp(name)
        path = write_job_file(folder, tiny_model, name=name, **jobs.job_options(folder, **options))
        return prepare.prepare(load_job(path), backend, home)[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", preloaded.interpreter_path())
        yield Workbench(
            backend,
            root,
            lambda name: staged(name, SHORT),
            lambda name: staged(name, LONG),
            poll=0.02,
        )


class TestLocalReinforcement(BackendSuite):
    """The conformance suite on the local backend, for REINFORCEMENT_FINE_TUNING."""


__all__ = ["finished"]
