"""Job folders without cloudft, and the trainer run in this process."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import tiny
from trainer_run import RunTrainer, TrainerRun, run_trainer


@pytest.fixture
def train(tmp_path: Path, tiny_model: Path) -> RunTrainer:
    """Return a function that writes a job folder and trains in it; see tiny.write_job_dir."""
    numbers = itertools.count()

    def prepare_and_run(
        records: int | list[dict[str, Any]] = 8,
        *,
        validation: list[dict[str, Any]] | None = None,
        model: Path | None = None,
        **changes: Any,
    ) -> TrainerRun:
        data = {"train": tiny.pairs(records) if isinstance(records, int) else records}
        if validation is not None:
            data["validation"] = validation
        folder = tmp_path / f"run-{next(numbers)}"
        return run_trainer(tiny.write_job_dir(folder, model or tiny_model, data, **changes))

    return prepare_and_run


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> TrainerRun:
    """Return a job that was trained until it knows eight answers."""
    records = [tiny.pair(f"Where is parcel {n}?", f"In {c}.") for n, c in enumerate(tiny.CITIES)]
    folder = tmp_path_factory.mktemp("tuned")
    tiny.write_job_dir(folder, tiny_model, {"train": records}, epochCount=60, learningRate=0.02)
    trained = run_trainer(folder)
    assert trained.status == "Completed", trained.log
    return trained
