"""The Bedrock backend, over HTTP, against the endpoint that trains for real."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from endpoint import KEYS, Endpoint, furnish
from job_files import write_job_file
from processes import wait_until
from suite import BackendSuite, Bench, finished

from cloudft import jobs
from cloudft.aws.client import Aws, Place
from cloudft.backends.base import StagedJob
from cloudft.backends.bedrock.backend import BedrockBackend
from cloudft.home import Home
from cloudft.spec.load import load_job

KEPT: list[subprocess.Popen[bytes]] = []
"""What was started here ends by itself; see --until-pid."""
SMALL = ("local.device=cpu", "local.dtype=float32", "local.lora.r=4", "local.lora.alpha=8")


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
        return jobs.prepare(load_job(path), backend, home)[0]

    def short(name: str) -> StagedJob:
        epochs = {"epochCount": 3, "learningRate": 0.03}
        return staged(name, records=12, validation=tiny.pairs(4), hyperparameters=epochs)

    def long(name: str) -> StagedJob:
        epochs = {"epochCount": 10, "learningRate": 1e-4, "batchSize": 1}
        return staged(name, records=400, hyperparameters=epochs)

    yield Bench(backend, root, short, long, poll=0.05)
    patch.undo()


def shared_endpoint(root: Path, model: Path) -> Endpoint:
    """The endpoint of all workers; it ends with the process group that the first of them is in."""
    with (root / "endpoint.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        note = root / "endpoint.json"
        if not note.exists():
            command = [
                sys.executable,
                "-m",
                "cloudft",
                "endpoint",
                "-q",
                "--state",
                str(root / "state"),
            ]
            command += ["--stand-in", str(model), "--jobs", "20", "--until-pid", str(_tests())]
            for setting in SMALL:
                command += ["--set", setting]
            log = root / "endpoint.log"
            with log.open("w") as stream:
                KEPT.append(subprocess.Popen(command, stdout=stream, stderr=stream))
            url = wait_until(lambda: log.read_text().partition("\n")[0], "the endpoint is up")
            furnish(Endpoint(url))
            note.write_text(json.dumps({"url": url}))
    return Endpoint(json.loads(note.read_text())["url"])


def _tests() -> int:
    """The process that lives as long as the tests run."""
    return os.getppid() if os.environ.get("PYTEST_XDIST_WORKER") else os.getpid()


class TestBedrock(BackendSuite):
    """Everything that the suite asks."""

    @pytest.fixture(autouse=True)
    def keys(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in KEYS.items():
            monkeypatch.setenv(name, value)


__all__ = ["finished"]
