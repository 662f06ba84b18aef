"""Fixtures that the suites of several backends share: one folder, one endpoint, all workers."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import preloaded
import pytest
import tiny
from endpoint import (
    AWS_KEYS,
    BUCKET,
    REGION,
    SAGEMAKER_ROLE,
    TOKEN,
    Endpoint,
    create_bucket_and_roles,
)
from job_files import write_job_file
from processes import wait_until
from suite import Workbench

from cloudft.aws.client import Aws, AwsLocation
from cloudft.backends.base import Backend, StagedJob
from cloudft.jobs import lifecycle, prepare
from cloudft.spec.load import load_job
from cloudft.storage.home import Home
from cloudft.storage.store import Store

KEPT: list[subprocess.Popen[bytes]] = []
"""What was started here ends by itself; see --until-pid."""
SMALL = ("local.device=cpu", "local.dtype=float32", "local.lora.r=4", "local.lora.alpha=8")
SHORT: dict[str, Any] = {
    "records": 12,
    "validation": tiny.pairs(4),
    "hyperparameters": {"epochCount": 3, "learningRate": 0.03},
}
"""A job of STEPS steps; see suite.py."""
LONG: dict[str, Any] = {
    "records": 40,
    "hyperparameters": {"epochCount": 1000, "learningRate": 1e-4},
}


def shared_root(tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    """Create one folder for all workers."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / name
    root.mkdir(exist_ok=True)
    return root


def cloud_bench(
    tmp_path_factory: pytest.TempPathFactory,
    backend: Callable[[Home, Aws], Backend],
    model: Path,
    job: Callable[[Endpoint], Mapping[str, Any]],
    long: Mapping[str, Any] = LONG,
    adapt: Callable[[Path], None] = lambda path: None,
) -> Iterator[Workbench]:
    """Yield a workbench with an AWS backend at an endpoint that trains `model` for real.

    `job` returns the parts of its job files besides data and hyperparameters, `model` among them.
    `adapt` changes a job file that has been written.
    """
    root = shared_root(tmp_path_factory, f"conformance-{backend.__name__}")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in AWS_KEYS.items():
            patch.setenv(name, value)
        endpoint = shared_endpoint(root, model)
        home = Home(root / "home")
        made = backend(home, Aws(AwsLocation(region=REGION, endpoint_url=endpoint.url)))

        def staged(name: str, options: Mapping[str, Any]) -> StagedJob:
            given = {**job(endpoint), **options, "name": name}
            path = write_job_file(tmp_path_factory.mktemp(name), **given)
            adapt(path)
            os.environ.update(AWS_KEYS)  # another fixture clears them for each test
            ready, store = prepare.prepare(load_job(path), made, home)[0], Store(home.jobs)
            with store.create(
                lifecycle.make_record(ready, made.plan(ready), store)
            ):  # as a submit does
                return ready

        yield Workbench(
            made, root, lambda name: staged(name, SHORT), lambda name: staged(name, long), poll=0.05
        )


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set credentials that the endpoint accepts."""
    for name, value in AWS_KEYS.items():
        monkeypatch.setenv(name, value)


def sagemaker_job(endpoint: Endpoint, model: Path) -> dict[str, Any]:
    """Return the parts of a job file for SageMaker besides data and hyperparameters."""
    section = {
        "region": REGION,
        "role_arn": SAGEMAKER_ROLE,
        "s3_uri": f"s3://{BUCKET}/team",
        "endpoint_url": endpoint.url,
        "image_uri": "pytorch-training:any",
        "instance_type": "ml.m5.xlarge",
    }
    return {"model": model, "sagemaker": section}


def shared_endpoint(root: Path, model: Path) -> Endpoint:
    """Start the endpoint of all workers, or find it; it ends with the tests' process."""
    with (root / "endpoint.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        note = root / "endpoint.json"
        if not note.exists():
            command = [
                preloaded.interpreter_path(),
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
                env = os.environ | {"CLOUDFT_ENDPOINT_TOKEN": TOKEN}
                KEPT.append(subprocess.Popen(command, stdout=stream, stderr=stream, env=env))
            url = wait_until(lambda: log.read_text().partition("\n")[0], "the endpoint is up")
            create_bucket_and_roles(Endpoint(url))
            note.write_text(json.dumps({"url": url}))
    return Endpoint(json.loads(note.read_text())["url"])


def _tests() -> int:
    """Return the id of the process that lives as long as the tests run."""
    return os.getppid() if os.environ.get("PYTEST_XDIST_WORKER") else os.getpid()
