"""Local jobs with trackers, whose trainer is played: the folder is as the real one leaves it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from job_records import make_record

from cloudft.storage.atomic_files import try_lock
from cloudft.storage.store import JobRecord, Store
from cloudft.storage.tracking_files import TrackerState, TrackingFolder

JOB_ID = "ticket-router-0a1b2c3d"
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


def loss_at(step: int, *, attempt: int = 0) -> float:
    """Return the loss of a step; another attempt has slightly other losses."""
    return 3.0 / (step + 1) + 0.25 + attempt * 0.01


class PlayedTrainer:
    """Writes a local job's folder as the trainer does (local_backend/job_dir.py)."""

    def __init__(self, home: Path, trackers: dict[str, Any]) -> None:
        self.home = home
        store = Store(home / "jobs")
        record = make_record(store, JOB_ID, manifest=_manifest())
        with store.create(record):
            store.mark_submitted(JOB_ID, JOB_ID)
        self.record: JobRecord = store.get(JOB_ID)
        self.folder = record.folder
        self.tracking = TrackingFolder(self.folder)
        self.tracking.save_settings(trackers)
        (self.folder / "job.json").write_text(json.dumps(_request()))
        (self.folder / "trainer.json").write_text("{}")
        (self.folder / "metrics.jsonl").touch()
        self._lock: int | None = None
        self.seconds = 0

    def start(self) -> None:
        """Take the job's lock: the job is in progress."""
        (self.folder / "ended.json").unlink(missing_ok=True)
        self._lock = try_lock(self.folder / "lock")
        assert self._lock is not None

    def write(self, steps: Iterable[int], *, attempt: int = 0, **values: float) -> None:
        """Append a training point for each step, and a validation after every tenth."""
        with (self.folder / "metrics.jsonl").open("a") as file:
            for step in steps:
                loss = values.get("loss", loss_at(step, attempt=attempt))
                self._point(file, step, "train", loss, learningRate=1e-4, tokensPerSecond=900.0)
                if step % 10 == 9:
                    self._point(file, step, "validation", loss + 0.5)

    def _point(self, file: Any, step: int, split: str, loss: float, **more: float) -> None:
        self.seconds += 1  # a step that is done again has another time, and another speed
        if "tokensPerSecond" in more:
            more["tokensPerSecond"] += self.seconds * 0.01
        row = {
            "step": step,
            "epoch": 0,
            "split": split,
            "loss": loss,
            "perplexity": 1.5,
            "learningRate": None,
            "tokensPerSecond": None,
            **more,
            "timestamp": (START + timedelta(seconds=self.seconds)).isoformat(),
        }
        file.write(json.dumps(row) + "\n")

    def kill(self) -> None:
        """Release the lock without an ending, as kill -9 of the trainer does."""
        assert self._lock is not None
        os.close(self._lock)
        self._lock = None

    def resume_from(self, step: int) -> None:
        """Cut the curve behind a checkpoint after `step` steps, and go on."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if json.loads(line)["step"] < step))
        self.start()

    def complete(self) -> None:
        """Leave artifacts and the ending, and release the lock."""
        folder = self.folder / "artifacts" / "training_artifacts"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "step_wise_training_metrics.csv").write_text("step_number,training_loss\n")
        (self.folder / "artifacts" / "manifest.json").write_text("{}")
        ended = {"status": "Completed", "failureMessage": None, "endedAt": START.isoformat()}
        (self.folder / "ended.json").write_text(json.dumps(ended))
        self.kill()

    def evaluate(self, accuracy: float) -> None:
        """Leave an evaluation, as `cloudft evaluate` does."""
        folder = self.folder / "evaluations"
        folder.mkdir(exist_ok=True)
        number = len(list(folder.iterdir()))
        evaluation = {
            "createdAt": (START + timedelta(hours=1 + number)).isoformat(),
            "task": "classification",
            "n": 40,
            "metric": "accuracy",
            "base": {"accuracy": 0.25},
            "tuned": {"accuracy": accuracy},
            "data": {"sha256": "1" * 64, "role": "validation"},
        }
        (folder / f"2026-{number}.json").write_text(json.dumps(evaluation))

    def losses(self, split: str = "train") -> dict[int, float]:
        """Return the losses in the job's own curve, by step."""
        lines = (self.folder / "metrics.jsonl").read_text().splitlines()
        points = [json.loads(line) for line in lines]
        return {p["step"]: p["loss"] for p in points if p["split"] == split}

    def state(self, tracker: str) -> TrackerState | None:
        """Return what is known of a tracker."""
        return self.tracking.load_state(tracker)

    def feeder(self, tracker: str, *options: str, **environ: str) -> subprocess.Popen[bytes]:
        """Start the process that feeds a tracker."""
        with self.tracking.log_path(tracker).open("ab") as log:
            return subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "cloudft.tracking",
                    JOB_ID,
                    tracker,
                    "--nice",
                    "0",
                    *options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.tracking.path,
                start_new_session=True,
                env={**os.environ, "CLOUDFT_HOME": str(self.home), **environ},
            )

    def feed(self, tracker: str, *options: str, **environ: str) -> TrackerState:
        """Feed a tracker until its process ends; return its state."""
        process = self.feeder(tracker, *options, **environ)
        try:
            process.wait(timeout=150)
        finally:
            kill_all(process)
        state = self.state(tracker)
        assert state is not None, self.tracking.log_path(tracker).read_text()
        return state

    @contextmanager
    def feeding(
        self, tracker: str, *options: str, **environ: str
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run the process within a block, and kill it by SIGKILL at its end if it lives."""
        process = self.feeder(tracker, *options, **environ)
        try:
            yield process
        finally:
            kill_all(process)

    def wait_for_points(self, tracker: str, count: int) -> None:
        """Wait until a tracker has that many values."""
        wait_until(lambda: (s := self.state(tracker)) is not None and s.points >= count)


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """Kill a feeder by SIGKILL, with the process that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_until(is_true: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until a condition holds. Raise AssertionError when the time is up."""
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def _manifest() -> dict[str, Any]:
    file = {"name": "train.jsonl", "sha256": "2" * 64, "records": 40, "tokens": 900}
    return {"sha256": "0" * 64, "files": {"train": file}, "sources": []}


def _request() -> dict[str, Any]:
    return {
        "version": 1,
        "id": JOB_ID,
        "name": "ticket-router",
        "attempt": 0,
        "customizationType": "FINE_TUNING",
        "baseModel": "nova-lite",
        "format": "prompt-completion",
        "model": {"name": "tiny", "weights": []},
        "method": "lora",
        "lora": {"r": 4, "alpha": 8, "dropout": 0.0, "target_modules": "all-linear"},
        "hyperParameters": {"epochCount": 1},
        "seed": 7,
        "data": {},
    }
