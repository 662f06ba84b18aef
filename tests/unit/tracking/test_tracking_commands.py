"""submit, status, resume, evaluate and track: who starts to feed trackers, and what people see."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from processes import Cli, JobFile
from tracked_jobs import JOB_ID, PlayedTrainer, wait_until

from cloudft.jobs import lifecycle
from cloudft.jobs.trackers import feed_ended_job, start_feeding
from cloudft.storage.tracking_files import TrackerState, TrackingFolder, describe_trackers
from cloudft.types import JobState, StatusDetails

pytest.importorskip("tensorboard", reason="the extra cloudft[tensorboard] is not installed")


@pytest.fixture
def trainer(home: Path, tmp_path: Path) -> PlayedTrainer:
    return PlayedTrainer(home, {"tensorboard": {"dir": str(tmp_path / "runs")}})


def is_fed(trainer: PlayedTrainer, tracker: str = "tensorboard") -> bool:
    state = trainer.state(tracker)
    return state is not None and state.status == "fed"


def test_a_submitted_job_feeds_its_trackers_and_a_dead_one_costs_it_nothing(
    cli: Cli, job_file: JobFile, tmp_path: Path, home: Path
) -> None:
    path = job_file()
    # MLflow's address accepts and never answers, and its package is not installed here either.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        section = {"tensorboard": {"dir": "runs"}, "mlflow": {"tracking_uri": address}}
        with path.open("a") as file:
            file.write(f"\ntracking: {json.dumps(section)}\n")
        done = cli("submit", path, "--wait", "--output", "json")
        assert done.returncode == 0, done.stderr
        job = json.loads(done.stdout)
        again = cli("submit", path, "--output", "json")
    assert json.loads(again.stdout)["id"] == job["id"]
    folder = TrackingFolder(home / "jobs" / job["id"])
    wait_until(lambda: (s := folder.load_state("tensorboard")) is not None and s.status == "fed")
    tracked = cli("track", job["id"], "--timeout", "60", "--output", "json")
    status = cli("status", job["id"])
    assert tracked.returncode == 1  # MLflow could not be fed, and TensorBoard was
    value = json.loads(tracked.stdout)["trackers"]
    assert value["tensorboard"]["status"] == "fed" and value["mlflow"]["status"] == "failed"
    assert "tracking:   mlflow: could not be loaded" in status.stdout
    assert "pip install 'cloudft[mlflow]'" in status.stdout
    assert (path.parent / "runs" / job["id"]).is_dir()
    request = json.loads((home / "jobs" / job["id"] / "job.json").read_text())
    assert "tracking" not in json.dumps(request)


def test_resume_starts_to_feed_again(
    trainer: PlayedTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    monkeypatch.setattr(lifecycle, "start_feeding", lambda record: started.append(record.id))

    class Resumed(lifecycle.SupportsResume):
        def resume(self, job_id: str) -> None:
            assert started == []

    lifecycle.resume(trainer.record, Resumed())  # type: ignore[arg-type]
    assert started == [JOB_ID]


def test_starting_to_feed_returns_at_once_and_one_process_feeds(trainer: PlayedTrainer) -> None:
    trainer.start()
    trainer.write(range(12))
    began = time.monotonic()
    assert start_feeding(trainer.record) == ["tensorboard"]
    start_feeding(trainer.record)
    assert time.monotonic() - began < 2.0
    trainer.wait_for_points("tensorboard", 12 * 3 + 1)
    trainer.complete()
    wait_until(lambda: is_fed(trainer))


def test_a_job_that_comes_home_is_fed_by_status_and_a_failed_tracker_is_not_tried_by_it(
    cli: Cli, trainer: PlayedTrainer
) -> None:
    trainer.start()
    trainer.write(range(12))
    trainer.complete()
    first = cli("status", JOB_ID, "--output", "json")
    assert "tensorboard" in json.loads(first.stdout)["tracking"]
    wait_until(lambda: is_fed(trainer) and not trainer.tracking.is_being_fed("tensorboard"))
    failed = TrackerState("failed", "", message="m", fix="f", job_status="Completed")
    trainer.tracking.save_state("tensorboard", failed)
    state = JobState(JOB_ID, "Completed", StatusDetails(), "", artifacts="any")
    feed_ended_job(trainer.record, state)
    time.sleep(0.5)
    assert not trainer.tracking.is_being_fed("tensorboard")


def test_a_job_without_trackers_names_the_way_to_one(cli: Cli, home: Path) -> None:
    PlayedTrainer(home, {})
    done = cli("track", JOB_ID)
    assert done.returncode == 2 and "add a section `tracking`" in done.stderr


@pytest.mark.parametrize(
    ("state", "is_locked", "text"),
    [
        (None, False, "nothing was sent"),
        (TrackerState("fed", "", points=7, url="http://h/1"), False, "7 values at http://h/1"),
        (
            TrackerState("feeding", "", waiting_since="2026-01-01T00:00:00+00:00"),
            True,
            "has not answered for",
        ),
        (
            TrackerState("feeding", "", message="could not be reached: x", fix="start it"),
            True,
            "could not be reached: x; it is tried again (fix: start it)",
        ),
        (TrackerState("failed", "", message="m", fix="f"), False, "m (fix: f; then `cloudft track"),
        (TrackerState("feeding", "", points=3), False, "its process is gone after 3 values"),
        (TrackerState("fed", "", points=3, not_finite={"train/loss": 2}), False, "2 values of"),
    ],
)
def test_what_status_says(
    trainer: PlayedTrainer,
    monkeypatch: pytest.MonkeyPatch,
    state: Any,
    is_locked: bool,
    text: str,
) -> None:
    if state is not None:
        trainer.tracking.save_state("tensorboard", state)
    monkeypatch.setattr(TrackingFolder, "is_being_fed", lambda self, name: is_locked)
    assert text in describe_trackers(trainer.folder)["tensorboard"]
