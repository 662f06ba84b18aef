"""The SageMaker backend, over HTTP, against the endpoint that runs its container for real."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import preloaded
import pytest
import tiny
from endpoint import BUCKET, KEYS, REGION, SAGEMAKER_ROLE
from job_files import write_job_file
from shared import shared_endpoint
from suite import BackendSuite, Bench, finished

from cloudft import preparing
from cloudft.aws.client import Aws, Place
from cloudft.backends.base import StagedJob
from cloudft.backends.sagemaker.backend import SageMakerBackend
from cloudft.home import Home
from cloudft.spec.load import load_job


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Bench]:
    """One endpoint and one home for all workers."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    root = shared / "conformance-sagemaker"
    root.mkdir(exist_ok=True)
    patch = pytest.MonkeyPatch()
    patch.setattr(sys, "executable", preloaded.python())  # its models are asked here
    for name, value in KEYS.items():
        patch.setenv(name, value)
    endpoint = shared_endpoint(root, tiny_model)
    home = Home(root / "home")
    place = Place(region=REGION, endpoint_url=endpoint.url)
    backend = SageMakerBackend(home, Aws(place))

    def staged(name: str, **options: Any) -> StagedJob:
        section = {
            "region": REGION,
            "role_arn": SAGEMAKER_ROLE,
            "s3_uri": f"s3://{BUCKET}/team",
            "endpoint_url": endpoint.url,
            "image_uri": "pytorch-training:any",
            "instance_type": "ml.m5.xlarge",
        }
        folder = tmp_path_factory.mktemp(name)
        path = write_job_file(folder, tiny_model, name=name, sagemaker=section, **options)
        for key in KEYS:  # another fixture clears them for each test
            os.environ[key] = KEYS[key]
        return preparing.prepare(load_job(path), backend, home)[0]

    def short(name: str) -> StagedJob:
        epochs = {"epochCount": 3, "learningRate": 0.03}
        return staged(name, records=12, validation=tiny.pairs(4), hyperparameters=epochs)

    def long(name: str) -> StagedJob:
        return staged(name, records=40, hyperparameters={"epochCount": 1000, "learningRate": 1e-4})

    yield Bench(backend, root, short, long, poll=0.05)
    patch.undo()


class TestSageMaker(BackendSuite):
    """Everything that the suite asks."""

    @pytest.fixture(autouse=True)
    def keys(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in KEYS.items():
            monkeypatch.setenv(name, value)


__all__ = ["finished"]
