"""The SageMaker backend, over HTTP, against the endpoint that runs its container for real."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import preloaded
import pytest
from shared import cloud_bench, keys, sagemaker_job
from suite import BackendSuite, Workbench, finished

from cloudft.backends.sagemaker.backend import SageMakerBackend


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Workbench]:
    """Yield one endpoint and one home for all workers."""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", preloaded.interpreter_path())  # its models are asked here
        yield from cloud_bench(
            tmp_path_factory, SageMakerBackend, tiny_model, lambda e: sagemaker_job(e, tiny_model)
        )


class TestSageMaker(BackendSuite):
    """The conformance suite on the SageMaker backend."""


__all__ = ["finished", "keys"]
