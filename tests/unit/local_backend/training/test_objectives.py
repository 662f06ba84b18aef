"""The registry of objectives: a new one trains on the packed and on the padded path alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from trainer_run import RunTrainer

from local_backend.data.batches import MicroBatchLimit
from local_backend.data.chat_template import RecordFormat
from local_backend.data.examples import Example
from local_backend.data.text_tokens import Segment
from local_backend.errors import TrainerError
from local_backend.job_dir import JobDir
from local_backend.models.token_losses import TokenLosses
from local_backend.settings import read_settings
from local_backend.training.memory_estimate import StepEstimator, encode_training_data
from local_backend.training.objectives import OBJECTIVES, Objective, find_objective
from local_backend.training.probe import probe


class EqualAnswers(Objective):
    """Counts every answer once, however long it is, and learns upper-case prompts."""

    customization_type = "EQUAL_ANSWERS"

    def render(self, record: Mapping[str, object], record_format: RecordFormat) -> list[Segment]:
        return [(self.render_prompt(record, record_format), False), (str(record["answer"]), True)]

    def render_prompt(self, record: Mapping[str, object], record_format: RecordFormat) -> str:
        return str(record["question"]).upper()

    def count(self, examples: Sequence[Example]) -> int:
        return len(examples)

    def loss(self, examples: Sequence[Example], losses: TokenLosses) -> torch.Tensor:
        return torch.stack([example_losses.mean() for example_losses in losses.by_row()]).sum()

    def metrics(self, mean_loss: float) -> dict[str, float]:
        return {**super().metrics(mean_loss), "doubled": 2 * mean_loss}


RECORDS = [
    {"question": f"Where is parcel {n}?", "answer": f"In {city}." * (1 + n % 3)}
    for n, city in enumerate(tiny.CITIES)
]
JOB: dict[str, Any] = {"customizationType": "EQUAL_ANSWERS", "format": "question-answer"}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add the objective as a module of its own would: one entry in the table."""
    monkeypatch.setitem(OBJECTIVES, "EQUAL_ANSWERS", EqualAnswers())


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_new_objective_trains_on_both_paths_with_the_same_curve(
    train: RunTrainer, method: str
) -> None:
    runs = [
        train(
            RECORDS,
            validation=RECORDS[:3],
            packed=packed,
            method=method,
            microBatchSize=2,
            epochCount=3,
            **JOB,
        )
        for packed in (True, False)
    ]
    assert [run.status for run in runs] == ["Completed"] * 2, runs[0].log + runs[1].log
    packed, padded = runs
    assert packed.losses() == pytest.approx(padded.losses(), abs=1e-4)
    assert packed.losses("validation") == pytest.approx(padded.losses("validation"), abs=1e-4)
    assert packed.losses()[-1] < packed.losses()[0]
    point = packed.curve_points()[-1]
    assert point["doubled"] == 2 * point["loss"]
    assert packed.summary["tuned"]["doubled"] == 2 * packed.summary["tuned"]["validationLoss"]


def test_the_memory_estimate_and_the_probe_take_it(tmp_path: Path, tiny_model: Path) -> None:
    folder = tiny.write_job_dir(tmp_path / "job", tiny_model, {"train": RECORDS}, **JOB)
    settings = read_settings(JobDir(folder))
    config, data = encode_training_data(settings)
    estimator = StepEstimator(config, settings, torch.float32, torch.device("cpu"))
    estimate = estimator.estimate(data.examples, MicroBatchLimit(4, 10**6))
    assert estimate.peak > estimate.persistent > 0
    replies: list[Any] = []
    probe(JobDir(folder), 2, replies.append)
    assert replies[-1]["took"]["measuredSteps"] == 2
    assert replies[-1]["took"]["records"] == len(RECORDS)


def test_an_unknown_customization_type_is_an_error_with_the_known_ones() -> None:
    with pytest.raises(TrainerError, match=r"no objective for IMPORTED.*FINE_TUNING or"):
        find_objective("IMPORTED")
