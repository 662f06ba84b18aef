"""A reinforcement job on every backend that trains it: submitted twice, it is one job that learns.

On AWS the grader is a function that was created from the package that `infra deploy` uploads.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import preloaded
import pytest
import yaml
from endpoint import ROLE, Endpoint
from grader_jobs import EXACT_GRADER, prompts
from shared import cloud_bench, keys, sagemaker_job
from suite import Workbench

from cloudft.backends.aws_base.grader_package import pack_grader
from cloudft.backends.bedrock.backend import BedrockBackend
from cloudft.backends.sagemaker.backend import SageMakerBackend
from cloudft.catalogue import CUSTOMIZATION_TYPES

TYPE = "REINFORCEMENT_FINE_TUNING"
FUNCTION = "conformance-grader"
STEPS = 100 // 16
HYPERPARAMETERS = {
    "epochCount": 1,
    "batchSize": 16,
    "learningRate": 1e-3,
    "trainingSamplePerPrompt": 2,
    "inferenceMaxTokens": 4,
}


def bedrock_job(endpoint: Endpoint, model: Path) -> dict[str, Any]:
    service = endpoint.client("lambda")
    package = pack_grader(EXACT_GRADER.encode())
    try:
        created = service.get_function(FunctionName=FUNCTION)["Configuration"]
    except service.exceptions.ResourceNotFoundException:
        created = service.create_function(
            FunctionName=FUNCTION,
            Runtime="python3.13",
            Handler=package.handler,
            Role=ROLE,
            Code={"ZipFile": package.content},
            Timeout=30,
            MemorySize=512,
        )
    return {
        "model": Path("nova-2-lite"),
        "bedrock": {**endpoint.bedrock_section, "endpoint_url": endpoint.url},
        "local": {"model": str(model)},
        "reinforcement": {"lambda_arn": created["FunctionArn"]},
    }


def rewarded_sagemaker_job(endpoint: Endpoint, model: Path) -> dict[str, Any]:
    return {**sagemaker_job(endpoint, model), "reinforcement": {}}


BENCHES = {
    "bedrock": (BedrockBackend, bedrock_job),
    "sagemaker": (SageMakerBackend, rewarded_sagemaker_job),
}


def with_grader(path: Path) -> None:
    """Add the grader and its hyperparameters to a job file."""
    (path.parent / "grader.py").write_text(EXACT_GRADER, encoding="utf-8")
    spec = yaml.safe_load(path.read_text())
    spec["customization_type"] = TYPE
    spec["reinforcement"] |= {"grader": "grader.py", "hyperparameters": HYPERPARAMETERS}
    spec["hyperparameters"] = {}
    path.write_text(yaml.safe_dump(spec))


@pytest.fixture(scope="module", params=sorted(BENCHES))
def bench(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path
) -> Iterator[Workbench]:
    """Yield the bench of an AWS backend; its long job is the reinforcement job."""
    backend, job = BENCHES[request.param]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", preloaded.interpreter_path())
        yield from cloud_bench(
            tmp_path_factory,
            backend,
            tiny_model,
            lambda endpoint: job(endpoint, tiny_model),
            {"records": prompts(100)},
            with_grader,
        )


def test_the_backends_that_train_it_are_tested() -> None:
    assert CUSTOMIZATION_TYPES[TYPE].trains_on == {"local", *BENCHES}


def test_a_reinforcement_job_is_one_job_with_rewards(bench: Workbench) -> None:
    backend = bench.backend
    plan = backend.plan(bench.long("rewarded"))
    identifier = backend.submit(plan)
    assert backend.submit(plan) == identifier
    state = bench.wait_until_ended(identifier)
    assert state.status == "Completed", state.failure_message
    assert backend.submit(plan) == identifier
    points = [point for point in backend.metrics(identifier) if point.split == "train"]
    assert [point.step for point in points] == list(range(len(points))) and len(points) >= STEPS
    assert all(point.reward is not None for point in points)


__all__ = ["keys"]
