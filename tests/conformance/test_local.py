"""The local backend, with real trainers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import preloaded
import pytest
import tiny
from job_files import write_job_file
from suite import BackendSuite, Bench, finished

from cloudft import preparing
from cloudft.backends.base import StagedJob
from cloudft.backends.local.backend import LocalBackend
from cloudft.home import Home
from cloudft.spec.load import load_job


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Bench]:
    """One home for all workers: they submit to it side by side."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    root = shared / "conformance-local"
    root.mkdir(exist_ok=True)
    home = Home(root / "home")
    backend = LocalBackend(home)

    def staged(name: str, **options: Any) -> StagedJob:
        folder = tmp_path_factory.mktemp(name)
        path = write_job_file(folder, tiny_model, name=name, **options)
        return preparing.prepare(load_job(path), backend, home)[0]

    def short(name: str) -> StagedJob:
        epochs = {"epochCount": 3, "learningRate": 0.03}
        return staged(name, records=12, validation=tiny.pairs(4), hyperparameters=epochs)

    def long(name: str) -> StagedJob:
        return staged(name, records=40, hyperparameters={"epochCount": 1000, "learningRate": 1e-4})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", preloaded.python())
        yield Bench(backend, root, short, long, poll=0.02)


class TestLocal(BackendSuite):
    """Everything that the suite asks."""


__all__ = ["finished"]
