"""The Bedrock backend, over HTTP, against the endpoint that trains for real."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from endpoint import KEYS
from job_files import write_job_file
from shared import shared_endpoint
from suite import BackendSuite, Bench, finished

from cloudft import preparing
from cloudft.aws.client import Aws, Place
from cloudft.backends.base import StagedJob
from cloudft.backends.bedrock.backend import BedrockBackend
from cloudft.home import Home
from cloudft.spec.load import load_job


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Bench]:
    """One endpoint and one home for all workers."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    root = shared / "conformance-bedrock"
    root.mkdir(exist_ok=True)
    patch = pytest.MonkeyPatch()
    for name, value in KEYS.items():
        patch.setenv(name, value)
    endpoint = shared_endpoint(root, tiny_model)
    home = Home(root / "home")
    place = Place(region="us-east-1", endpoint_url=endpoint.url)
    backend = BedrockBackend(home, Aws(place))

    def staged(name: str, **options: Any) -> StagedJob:
        folder = tmp_path_factory.mktemp(name)
        section = {**endpoint.section, "endpoint_url": endpoint.url}
        path = write_job_file(
            folder,
            Path("titan-text-express"),
            name=name,
            bedrock=section,
            local={"model": str(tiny_model)},
            **options,
        )
        for key in KEYS:  # another fixture clears them for each test
            os.environ[key] = KEYS[key]
        return preparing.prepare(load_job(path), backend, home)[0]

    def short(name: str) -> StagedJob:
        epochs = {"epochCount": 3, "learningRate": 0.03}
        return staged(name, records=12, validation=tiny.pairs(4), hyperparameters=epochs)

    def long(name: str) -> StagedJob:
        epochs = {"epochCount": 10, "learningRate": 1e-4, "batchSize": 1}
        return staged(name, records=400, hyperparameters=epochs)

    yield Bench(backend, root, short, long, poll=0.05)
    patch.undo()


class TestBedrock(BackendSuite):
    """Everything that the suite asks."""

    @pytest.fixture(autouse=True)
    def keys(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in KEYS.items():
            monkeypatch.setenv(name, value)


__all__ = ["finished"]
