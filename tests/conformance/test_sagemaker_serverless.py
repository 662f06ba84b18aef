"""SageMaker's own customization, over HTTP, against the endpoint that trains for real.

Its service offers less than cloudft's trainer: no validation curve, no checkpoints to resume from,
and weights that stay in S3.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import preloaded
import pytest
import yaml
from endpoint import BUCKET, REGION, SAGEMAKER_ROLE, Endpoint
from shared import cloud_bench, keys
from suite import STEPS, STEPS_PER_EPOCH, BackendSuite, FinishedJob, Workbench, finished

from cloudft.backends.sagemaker.backend import SageMakerBackend
from cloudft.errors import JobStateConflict
from cloudft.inference import GenerationConfig, Prompt
from cloudft.storage import artifacts

GROUP = "conformance"


def without_warmup(path: Path) -> None:
    """Remove the hyperparameter that SageMaker's recipes lack."""
    spec = yaml.safe_load(path.read_text())
    del spec["hyperparameters"]["learningRateWarmupSteps"]
    path.write_text(yaml.safe_dump(spec))


class ServerlessBackend(SageMakerBackend):
    """The backend under another name, which is that of the suite's folder."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Workbench]:
    """Yield one endpoint and one home for all workers."""

    def job(endpoint: Endpoint) -> dict[str, Any]:
        client = endpoint.client("sagemaker")
        try:
            client.describe_model_package_group(ModelPackageGroupName=GROUP)
        except client.exceptions.ClientError:
            client.create_model_package_group(ModelPackageGroupName=GROUP)
        serverless = {"model": "huggingface-reasoning-qwen3-06b", "model_package_group": GROUP}
        section = {
            "region": REGION,
            "role_arn": SAGEMAKER_ROLE,
            "s3_uri": f"s3://{BUCKET}/team",
            "endpoint_url": endpoint.url,
            "serverless": serverless,
        }
        return {"model": tiny_model, "sagemaker": section}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", preloaded.interpreter_path())
        yield from cloud_bench(
            tmp_path_factory, ServerlessBackend, tiny_model, job, adapt=without_warmup
        )


class TestServerless(BackendSuite):
    """The conformance suite on sagemaker.serverless."""


__all__ = ["finished", "keys"]
