"""A job of every customization type on this machine and on SageMaker: one job that learns.

The whole suite runs with fine-tuning and, here, with rewards; Bedrock's types are in
test_bedrock.py and test_reinforcement_on_aws.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import preloaded
import pytest
import tiny
from job_files import write_job_file
from shared import cloud_bench, sagemaker_job, shared_root
from suite import Workbench

from cloudft.backends.local.backend import LocalBackend
from cloudft.backends.sagemaker.backend import SageMakerBackend
from cloudft.catalogue import CUSTOMIZATION_TYPES
from cloudft.jobs import prepare
from cloudft.spec.load import load_job
from cloudft.storage import artifacts
from cloudft.storage.home import Home
from cloudft.types import to_json

RECORDS, EPOCHS = 8, 2
ANSWERS = "answers.jsonl"
TYPES: dict[str, dict[str, Any]] = {
    "CONTINUED_PRE_TRAINING": {"records": tiny.texts(RECORDS * 4), "local": {"max_length": 16}},
    "DISTILLATION": {
        "records": [{"prompt": record["prompt"]} for record in tiny.pairs(RECORDS)],
        "distillation": {"answers": ANSWERS},
    },
    "PREFERENCE_OPTIMIZATION": {
        "records": [
            {"prompt": record["prompt"], "chosen": record["completion"], "rejected": "No."}
            for record in tiny.pairs(RECORDS)
        ],
        "preference": {"method": "dpo"},
    },
}
"""The types that no other file here trains on both backends, each with its part of the job file."""
BACKENDS = ("local", "sagemaker")
SETTINGS = {"device": "cpu", "dtype": "float32", "lora": {"r": 4, "alpha": 8}}


def options_of(kind: str) -> dict[str, Any]:
    """Return what write_job_file takes for a job of this type."""
    options = dict(TYPES[kind])
    local = SETTINGS | options.pop("local", {})
    return {
        "customization_type": kind,
        "local": local,
        "hyperparameters": {"epochCount": EPOCHS},
        **options,
    }


def write_answers(path: Path) -> None:
    """Write the teacher's answers beside a job file."""
    tiny.write_jsonl(path.parent / ANSWERS, tiny.pairs(RECORDS))


def local_bench(
    tmp_path_factory: pytest.TempPathFactory, model: Path, options: Mapping[str, Any]
) -> Iterator[Workbench]:
    """Yield a bench of the local backend."""
    root = shared_root(tmp_path_factory, "conformance-types")
    home = Home(root / "home")
    backend = LocalBackend(home)

    def staged(name: str) -> Any:
        path = write_job_file(tmp_path_factory.mktemp(name), model, name=name, **options)
        write_answers(path)
        return prepare.prepare(load_job(path), backend, home)[0]

    yield Workbench(backend, root, staged, staged, poll=0.02)


@pytest.fixture(
    params=[(kind, backend) for kind in sorted(TYPES) for backend in BACKENDS], ids=":".join
)
def bench(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path
) -> Iterator[tuple[str, Workbench]]:
    """Yield a type, and a bench whose long job is of that type."""
    kind, name = request.param
    options = options_of(kind)
    make: Callable[[], Iterator[Workbench]] = lambda: (  # noqa: E731
        local_bench(tmp_path_factory, tiny_model, options)
        if name == "local"
        else cloud_bench(
            tmp_path_factory,
            SageMakerBackend,
            tiny_model,
            lambda endpoint: sagemaker_job(endpoint, tiny_model),
            options,
            write_answers,
        )
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", preloaded.interpreter_path())
        for made in make():
            yield kind, made


def test_every_type_is_tested_on_every_backend_that_has_it() -> None:
    elsewhere = {"FINE_TUNING", "REINFORCEMENT_FINE_TUNING"}
    assert {*TYPES} | elsewhere == {*CUSTOMIZATION_TYPES}
    assert all({*BACKENDS} <= CUSTOMIZATION_TYPES[kind].trains_on for kind in TYPES)


def test_a_job_of_the_type_is_one_job_that_learns(bench: tuple[str, Workbench]) -> None:
    kind, made = bench
    backend = made.backend
    plan = backend.plan(made.long(f"one-{kind.lower().replace('_', '-')}"))
    identifier = backend.submit(plan)
    assert backend.submit(plan) == identifier
    state = made.wait_until_ended(identifier)
    assert state.status == "Completed", state.failure_message
    assert to_json(state.status_details)["trainingDetails"] == "Completed"
    assert backend.submit(plan) == identifier
    points = [point for point in backend.metrics(identifier) if point.split == "train"]
    steps = [point.step for point in points]
    assert steps == list(range(len(points))) and len(points) >= EPOCHS
    assert points[-1].loss < points[0].loss
    if state.artifacts is not None and not state.artifacts.startswith("s3:"):
        assert artifacts.is_complete(Path(state.artifacts))
