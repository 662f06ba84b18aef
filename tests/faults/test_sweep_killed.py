"""A sweep, a trial's trainer, or both are killed: each trial is done once, and none is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import Cli, JobFile, find_processes, kill, read_json, read_jsonl, wait_until

pytest.importorskip("optuna")

TRIALS, EPOCHS = 6, 24
"""More trials than are killed, so that the sweep is not over before the last signal comes."""
SPACE = {"learningRate": {"low": 1e-3, "high": 3e-2, "log": True}, "local.lora.r": [2, 4]}


@pytest.fixture(autouse=True)
def no_trainer_is_left(home: Path) -> Iterator[None]:
    yield
    for pid in find_processes(str(home)):
        kill(pid)


def write_sweep(job_file: JobFile, epochs: int = EPOCHS, **options: int) -> Path:
    """Return a sweep of trials that take about a second each."""
    validation = [{"prompt": f"Where is parcel {n}?", "completion": "Oslo"} for n in range(4)]
    sweep = {"space": SPACE, "trials": TRIALS, "seeds": 1, "repeat_best": 1, "pruning": False}
    return job_file(
        records=8,
        validation=validation,
        hyperparameters={"epochCount": epochs},
        sweep=sweep | options,
    )


def start_sweep(job: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "cloudft", "sweep", str(job)],
        env=dict(os.environ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # A program that a script starts in the background ignores Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def running_trial(home: Path, number: int) -> Path | None:
    """Return the folder of the trial that runs now, once it has a validation."""
    for path in home.glob("sweeps/*/result.json"):
        for one in read_json(path)["trials"]:
            if one["number"] == number and one["job"]:
                folder = home / "jobs" / one["job"]
                points = read_jsonl(folder / "metrics.jsonl")
                if not (folder / "ended.json").exists() and any(
                    point["split"] == "validation" for point in points
                ):
                    return folder
    return None


def test_each_trial_is_done_once(
    cli: Cli, home: Path, job_file: JobFile, preloaded_here: None
) -> None:
    """Killed are the sweep, then sweep and trainer; then the trainer alone; last comes Ctrl-C."""
    job, jobs = write_sweep(job_file, parallel_trials=1), []
    for at, target in enumerate(("sweep", "both", "trainer")):
        sweep = start_sweep(job)
        folder = wait_until(lambda at=at: running_trial(home, at), f"trial {at} validates")  # type: ignore[misc]
        jobs.append(folder.name)
        pids = read_json(folder / "trainer.json")
        if target in ("sweep", "both"):
            kill(sweep.pid)
        if target in ("trainer", "both"):
            kill(pids["supervisor"])
            kill(pids["pid"])
        if target == "trainer":
            wait_until(lambda folder=folder: read_json(folder / "ended.json"), "it goes on")  # type: ignore[misc]
            kill(sweep.pid, signal.SIGINT)
        assert sweep.wait(120) == {"trainer": 130}.get(target, -signal.SIGKILL)
    done = cli("sweep", job, "--output", "json", timeout=120)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert_whole(result, home)
    # Each went on with the job that it had.
    assert [one["job"] for one in result["trials"]][: len(jobs)] == jobs
    again = json.loads(cli("sweep", job, "--output", "json", timeout=120).stdout)
    assert again["trials"] == result["trials"] and again["repeats"] == result["repeats"]


def test_two_at_once_are_done_once(
    cli: Cli, home: Path, job_file: JobFile, preloaded_here: None
) -> None:
    """Killed are the sweep and one of the trainers, while the other goes on; then comes Ctrl-C."""
    epochs = 4 * EPOCHS
    job = write_sweep(job_file, epochs, parallel_trials=2)
    sweep = start_sweep(job)
    both = [
        wait_until(lambda at=at: running_trial(home, at), f"trial {at} validates")  # type: ignore[misc]
        for at in (0, 1)
    ]
    kill(sweep.pid)
    pids = read_json(both[1] / "trainer.json")
    kill(pids["supervisor"])
    kill(pids["pid"])
    assert sweep.wait(120) == -signal.SIGKILL
    sweep = start_sweep(job)
    last = wait_until(lambda: running_trial(home, 2), "the last trial validates")
    kill(sweep.pid, signal.SIGINT)
    assert sweep.wait(120) == 130
    wait_until(lambda: read_json(last / "ended.json"), "it has stopped")
    done = cli("sweep", job, "--output", "json", timeout=120)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert_whole(result, home, epochs)
    assert [one["job"] for one in result["trials"]][:3] == [*(one.name for one in both), last.name]


def assert_whole(result: dict[str, Any], home: Path, epochs: int = EPOCHS) -> None:
    """Check that each trial is there once, with a whole curve of its own, and one model is left."""
    trials, repeats = result["trials"], result["repeats"]
    assert [one["number"] for one in trials] == list(range(TRIALS))
    assert [one["outcome"] for one in trials + repeats] == ["complete"] * (TRIALS + len(repeats))
    points = [json.dumps(one["values"], sort_keys=True) for one in trials]
    assert len(set(points)) == TRIALS
    jobs = [one["job"] for one in trials + repeats]
    assert len(set(jobs)) == len(jobs) == len(list((home / "jobs").glob("tiny-*")))
    for one in trials:
        curve = read_jsonl(home / "jobs" / one["job"] / "metrics.jsonl")
        steps = [point["step"] for point in curve if point["split"] == "train"]
        assert steps == list(range(2 * epochs))
        losses = [point["loss"] for point in curve if point["split"] == "validation"]
        assert one["score"] == min(losses)
        assert len(one["points"]) == epochs
    best = trials[result["best"]]["job"]
    left = [path.parent.name for path in (home / "jobs").glob("*/artifacts")]
    assert left == [best]
