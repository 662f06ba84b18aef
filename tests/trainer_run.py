"""Run the trainer in this process, and read what it left."""

from __future__ import annotations

import contextlib
import csv
import io
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from processes import read_json, read_jsonl

RunTrainer = Callable[..., "TrainerRun"]


@dataclass(frozen=True)
class TrainerRun:
    """A job folder after the trainer has ended."""

    path: Path
    log: str

    @property
    def ending(self) -> dict[str, Any]:
        """Return the ending."""
        value: dict[str, Any] = read_json(self.path / "ended.json")
        return value

    @property
    def status(self) -> str:
        """Return Completed, Failed or Stopped."""
        return str(self.ending["status"])

    @property
    def message(self) -> str:
        """Return the failure message."""
        assert self.status == "Failed", self.log
        return str(self.ending["failureMessage"])

    @property
    def summary(self) -> dict[str, Any]:
        """Return what the trainer has chosen and found."""
        value: dict[str, Any] = read_json(self.path / "state.json")["summary"]
        return value

    @property
    def model(self) -> Path:
        """Return the folder of the tuned model."""
        return self.path / "artifacts" / "model"

    def curve_points(self, split: str = "train") -> list[dict[str, Any]]:
        """Return the points of one of the two curves."""
        return [p for p in read_jsonl(self.path / "metrics.jsonl") if p["split"] == split]

    def losses(self, split: str = "train") -> list[float]:
        """Return the losses of one curve, in order."""
        return [point["loss"] for point in self.curve_points(split)]

    def rows(self, name: str) -> list[list[str]]:
        """Return a CSV file of the artifacts, header first."""
        with (self.path / "artifacts" / name).open(newline="") as stream:
            return list(csv.reader(stream))


def run_trainer(folder: Path) -> TrainerRun:
    """Train in this process, to the end."""
    from local_backend.train import main

    output = io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            main([str(folder)])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return TrainerRun(folder, output.getvalue())


def run_to_checkpoint(folder: Path, step: int) -> TrainerRun:
    """Train with a checkpoint after each step, and break off after that of `step`.

    The folder is that of a job whose trainer was killed: it has no ending.
    """
    from local_backend.training import train_loop

    def save_and_break_off(run: Any) -> None:
        train_loop.save_checkpoint(run)
        if run.position.step == step:
            raise RuntimeError("an error that ends the job")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_loop, "save_checkpoint_if_due", save_and_break_off)
        run = run_trainer(folder)
    assert run.status == "Failed" and len(run.losses()) == step, run.log
    (folder / "ended.json").unlink()
    return run
