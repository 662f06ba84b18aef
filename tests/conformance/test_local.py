"""The local backend, with real trainers."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import preloaded
import pytest
from job_files import write_job_file
from shared import LONG, SHORT, shared_root
from suite import BackendSuite, Workbench, finished

from cloudft.backends.base import StagedJob
from cloudft.backends.local.backend import LocalBackend
from cloudft.jobs import prepare
from cloudft.spec.load import load_job
from cloudft.storage.home import Home


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Workbench]:
    """Yield one home for all workers, which submit to it side by side."""
    root = shared_root(tmp_path_factory, "conformance-local")
    home = Home(root / "home")
    backend = LocalBackend(home)

    def staged(name: str, options: Mapping[str, Any]) -> StagedJob:
        path = write_job_file(tmp_path_factory.mktemp(name), tiny_model, name=name, **options)
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


class TestLocal(BackendSuite):
    """The conformance suite on the local backend."""


__all__ = ["finished"]
