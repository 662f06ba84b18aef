"""A trial's job while it runs: what stops it, and how it counts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from job_records import make_record

from cloudft.backends.local.job_folder import JobFolder
from cloudft.storage.store import Store
from cloudft.sweep.records import Outcome, TrialRecord
from cloudft.sweep.trial_job import DIVERGED, CurveReader, TrialRun
from cloudft.sweep.window import Entry, TrialWindow
from cloudft.types import JobState, StatusDetails, TrainingProgress

TOTAL = 10


class FakeBackend:
    """Writes a validation each time it is read, until the losses end or it is stopped."""

    def __init__(self, folder: Path, losses: Sequence[float], failure: str | None = None) -> None:
        self.folder, self.losses, self.failure = folder, list(losses), failure
        self.step, self.is_stopped = 0, False

    def plan(self, _staged: object) -> Any:
        return SimpleNamespace(job_id=self.folder.name)

    def stop(self, _job_id: str) -> None:
        self.is_stopped = True

    def describe(self, job_id: str) -> JobState:
        progress = TrainingProgress(self.step, TOTAL, 0, None, None, None, "training")
        state = JobState(job_id, "InProgress", StatusDetails(), "", progress=progress)
        if self.is_stopped:
            return replace(state, status="Stopped")
        if self.losses:
            self.write(self.losses.pop(0))
            return state
        if self.failure:
            return replace(state, status="Failed", failure_message=self.failure)
        return replace(state, status="Completed")

    def write(self, loss: float) -> None:
        self.step += 2
        point = {
            **{"step": self.step - 1, "epoch": 0, "split": "validation", "loss": loss},
            **{"perplexity": 1.0, "learningRate": None, "tokensPerSecond": None, "timestamp": ""},
        }
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(point) + "\n")


def run(
    folder: Path, losses: Sequence[float], failure: str | None = None, stop_at: float = -1
) -> tuple[TrialRecord, FakeBackend]:
    store = Store(folder / "jobs")
    record = make_record(store, "trial-00000001", hyper_parameters={"batchSize": 4})
    with store.create(record):
        store.mark_submitted(record.id, record.id)
    (record.folder / "ended.json").write_text('{"status": "Completed"}')
    backend = FakeBackend(record.folder, losses, failure)

    def on_point(found: TrialRecord) -> Outcome | None:
        return "pruned" if found.points[-1].loss == stop_at else None

    trial = TrialRecord(1, {}, 7)
    staged: Any = None
    started = TrialRun(staged, backend, store, trial, on_point=on_point)  # type: ignore[arg-type]
    window = TrialWindow(1, sleep=lambda _: None)
    window.start(Entry(trial, started, lambda _: None))
    return window.pop().record, backend


def test_a_run_has_the_score_of_its_best_validation(tmp_path: Path) -> None:
    trial, _ = run(tmp_path, [3.0, 1.0, 2.0])
    assert (trial.outcome, trial.score, trial.job) == ("complete", 1.0, "trial-00000001")
    assert [tuple(point) for point in trial.points] == [
        (8, 0.2, 3.0),
        (16, 0.4, 1.0),
        (24, 0.6, 2.0),
    ]


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_a_run_at_once(tmp_path: Path, loss: float) -> None:
    """However good its first validation was."""
    trial, backend = run(tmp_path, [0.1, loss, 0.2, 0.3])
    assert (trial.outcome, trial.score) == ("diverged", None)
    assert backend.is_stopped and len(backend.losses) == 2


def test_a_training_loss_that_is_no_number_is_what_the_trainer_says(tmp_path: Path) -> None:
    train_loop = pytest.importorskip("local_backend.training.train_loop")
    with pytest.raises(Exception, match=DIVERGED) as caught:
        train_loop.check_finite(float("nan"), 3)
    trial, _ = run(tmp_path, [2.0], str(caught.value))
    assert (trial.outcome, trial.score) == ("diverged", None)


def test_a_run_that_fails_keeps_its_reason(tmp_path: Path) -> None:
    trial, _ = run(tmp_path, [2.0], "Memory ran out")
    assert (trial.outcome, trial.message) == ("failed", "Memory ran out")


def test_a_run_is_stopped_where_that_is_decided(tmp_path: Path) -> None:
    trial, backend = run(tmp_path, [3.0, 2.5, 2.0, 1.0], stop_at=2.5)
    assert trial.outcome == "pruned" and backend.is_stopped and trial.score is None
    assert [point.loss for point in trial.points] == [3.0, 2.5]


def test_a_curve_that_was_cut_for_a_resume_is_read_again(tmp_path: Path) -> None:
    backend = FakeBackend(tmp_path, [])
    for loss in (3.0, 2.0, 1.0):
        backend.write(loss)
    reader = CurveReader(JobFolder(tmp_path))
    assert [metric.loss for metric in reader.read_new()] == [3.0, 2.0, 1.0]
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole[:1]) + whole[1][:-1])
    assert [metric.loss for metric in reader.read_new()] == [3.0]
    path.write_bytes(b"".join(whole[:2]))
    assert [metric.loss for metric in reader.read_new()] == [2.0]
