"""The Bedrock backend, over HTTP, against the endpoint that trains for real."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from endpoint import Endpoint
from shared import cloud_bench, keys
from suite import BackendSuite, Workbench, finished

from cloudft.backends.bedrock.backend import BedrockBackend

LONG = {
    "records": 400,
    "hyperparameters": {"epochCount": 10, "learningRate": 1e-4, "batchSize": 1},
}
"""Bedrock allows few epochs."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Workbench]:
    """Yield one endpoint and one home for all workers."""

    def job(endpoint: Endpoint) -> dict[str, Any]:
        section = {**endpoint.bedrock_section, "endpoint_url": endpoint.url}
        local = {"model": str(tiny_model)}
        return {"model": Path("titan-text-express"), "bedrock": section, "local": local}

    yield from cloud_bench(tmp_path_factory, BedrockBackend, tiny_model, job, LONG)


class TestBedrock(BackendSuite):
    """The conformance suite on the Bedrock backend."""


__all__ = ["finished", "keys"]
