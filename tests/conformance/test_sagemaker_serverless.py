"""SageMaker's own customization, over HTTP, against the endpoint that trains for real.

Its service offers less than cloudft's trainer: no validation curve, no checkpoints to resume from,
and weights that stay in S3.
"""

from __future__ import annotations

import json
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

from cloudft.backends.export_options import ExportOptions
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
        patch.setattr(sys, "executable", preloaded.interpreter_path())  # the check's tokenizer
        yield from cloud_bench(
            tmp_path_factory, ServerlessBackend, tiny_model, job, adapt=without_warmup
        )


class TestServerless(BackendSuite):
    """The conformance suite on sagemaker.serverless; five tests say what the service lacks."""

    def test_the_curve_has_every_step_once_in_order(
        self, bench: Workbench, finished: FinishedJob
    ) -> None:
        """The training curve alone: no source shows how a validation loss is written."""
        points = list(bench.backend.metrics(finished.id))
        assert [(p.split, p.step, p.epoch) for p in points] == [
            ("train", step, step // STEPS_PER_EPOCH) for step in range(STEPS)
        ]
        assert points[-1].loss < points[0].loss

    def test_artifacts_have_the_one_layout(
        self, bench: Workbench, finished: FinishedJob, tmp_path: Path
    ) -> None:
        folder = bench.backend.download_artifacts(finished.id, tmp_path / "out")
        assert artifacts.is_complete(folder)
        written = [(p.step, p.loss) for p in artifacts.read_metrics(folder)]
        assert written == [(p.step, p.loss) for p in bench.backend.metrics(finished.id)]
        assert json.loads((folder / artifacts.MANIFEST).read_bytes())["files"]["train"]["records"]
        weights = json.loads((folder / artifacts.RESULT).read_bytes())["weights"]
        assert weights == finished.states[-1].summary["weights"]

    def test_a_stopped_job_resumes_where_it_was(self, bench: Workbench, running: str) -> None:
        """SageMaker's customization has no checkpoint to go on from."""
        with pytest.raises(JobStateConflict, match="never resumed"):
            bench.backend.resume(running)

    def test_the_tuned_model_and_its_base_answer(
        self, bench: Workbench, finished: FinishedJob
    ) -> None:
        """The weights are in S3: they answer once they are imported."""
        with pytest.raises(JobStateConflict) as refused:
            list(
                bench.backend.generate(
                    finished.id, [Prompt(text="x")], ["tuned"], GenerationConfig()
                )
            )
        assert f"cloudft import {finished.id}" in str(refused.value.fix)

    def test_the_merged_model_is_proven_and_overwrites_nothing(
        self, bench: Workbench, finished: FinishedJob, tmp_path: Path
    ) -> None:
        """SageMaker has merged the weights: they are downloaded as they are."""
        got = bench.backend.export(finished.id, tmp_path / "merged", ExportOptions())
        assert (tmp_path / "merged" / "config.json").is_file()
        files = [path for path in (tmp_path / "merged").rglob("*") if path.is_file()]
        assert got["files"] == len(files)
        assert got["bytes"] == sum(path.stat().st_size for path in files)
        with pytest.raises(JobStateConflict):
            bench.backend.export(finished.id, tmp_path / "merged", ExportOptions())


__all__ = ["finished", "keys"]
