"""The SageMaker backend, over HTTP, against the endpoint that runs its container for real."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import preloaded
import pytest
from endpoint import BUCKET, REGION, SAGEMAKER_ROLE, Endpoint
from shared import cloud_bench, keys
from suite import BackendSuite, Workbench, finished

from cloudft.backends.sagemaker.backend import SageMakerBackend


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Workbench]:
    """Yield one endpoint and one home for all workers."""

    def job(endpoint: Endpoint) -> dict[str, Any]:
        section = {
            "region": REGION,
            "role_arn": SAGEMAKER_ROLE,
            "s3_uri": f"s3://{BUCKET}/team",
            "endpoint_url": endpoint.url,
            "image_uri": "pytorch-training:any",
            "instance_type": "ml.m5.xlarge",
        }
        return {"model": tiny_model, "sagemaker": section}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", preloaded.interpreter_path())  # its models are asked here
        yield from cloud_bench(tmp_path_factory, SageMakerBackend, tiny_model, job)


class TestSageMaker(BackendSuite):
    """The conformance suite on the SageMaker backend."""


__all__ = ["finished", "keys"]
