from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from processes import Cli, JobFile, kill, lines, read_json, wait_until

SLOW = {"epochCount": 40}
"""Enough steps of a tiny model to be killed in between."""


def start(cli: Cli, job_file: JobFile, home: Path, **options: Any) -> Path:
    """Submit a job that takes a while; its folder, once a checkpoint and some steps are there."""
    path = job_file(hyperparameters=SLOW, **options)
    done = cli("submit", path)
    assert done.returncode == 0, done.stderr
    folder = home / "jobs" / done.stdout.strip()
    wait_until(lambda: len(lines(folder / "metrics.jsonl")) > 20, "steps")
    wait_until(lambda: list((folder / "checkpoints").glob("step-*")), "a checkpoint")
    return folder


def status(cli: Cli, folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(cli("status", folder.name, "--output", "json").stdout)
    return value


def curve(folder: Path) -> list[tuple[str, int, float]]:
    return [(p["split"], p["step"], p["loss"]) for p in lines(folder / "metrics.jsonl")]


@pytest.fixture
def whole_curve(
    cli: Cli, job_file: JobFile, home: Path, validation: list[dict[str, str]]
) -> list[tuple[str, int, float]]:
    path = job_file("whole", hyperparameters=SLOW, validation=validation, name="whole")
    done = cli("submit", path, "--wait", timeout=120)
    assert done.returncode == 0, done.stderr
    return curve(next((home / "jobs").glob("whole-*")))


@pytest.fixture
def validation() -> list[dict[str, str]]:
    return [{"prompt": f"question {i}", "completion": "yes"} for i in range(4)]


def test_a_killed_trainer_fails_with_its_signal_and_resumes_to_the_same_curve(
    cli: Cli,
    job_file: JobFile,
    home: Path,
    validation: list[dict[str, str]],
    whole_curve: list[tuple[str, int, float]],
) -> None:
    folder = start(cli, job_file, home, validation=validation)
    for _ in range(2):
        kill(read_json(folder / "trainer.json")["pid"])
        wait_until(lambda: read_json(folder / "ended.json"), "the ending")
        state = status(cli, folder)
        assert state["status"] == "Failed"
        assert "SIGKILL" in state["failureMessage"]
        assert "Last log lines" in state["failureMessage"]
        before = len(lines(folder / "metrics.jsonl"))
        assert cli("resume", folder.name).returncode == 0
        wait_until(lambda n=before: len(lines(folder / "metrics.jsonl")) > n + 5, "more steps")
    assert cli("watch", folder.name, timeout=120).returncode == 0
    found = curve(folder)
    assert [(s, n) for s, n, _ in found] == [(s, n) for s, n, _ in whole_curve]
    assert [x for *_, x in found] == pytest.approx([x for *_, x in whole_curve], abs=1e-4)
    assert (folder / "artifacts" / "model" / "adapter_model.safetensors").is_file()


def test_a_trainer_killed_with_its_supervisor_is_failed_not_in_progress(
    cli: Cli, job_file: JobFile, home: Path
) -> None:
    folder = start(cli, job_file, home)
    pids = read_json(folder / "trainer.json")
    kill(pids["supervisor"])
    kill(pids["pid"])
    wait_until(lambda: status(cli, folder)["status"] == "Failed", "Failed")
    assert "killed together" in status(cli, folder)["failureMessage"]
    assert cli("resume", folder.name, "--wait", timeout=120).returncode == 0


def test_stop_leaves_a_checkpoint_and_resume_goes_on(
    cli: Cli, job_file: JobFile, home: Path
) -> None:
    folder = start(cli, job_file, home)
    assert cli("stop", folder.name, "--wait").returncode == 0
    assert status(cli, folder)["status"] == "Stopped"
    done = len(lines(folder / "metrics.jsonl"))
    assert cli("stop", folder.name).returncode == 0
    assert cli("resume", folder.name, "--wait", timeout=120).returncode == 0
    steps = [n for split, n, _ in curve(folder) if split == "train"]
    assert steps == list(range(160)) and done < 160


def test_sigterm_is_a_stop(cli: Cli, job_file: JobFile, home: Path) -> None:
    folder = start(cli, job_file, home)
    os.kill(read_json(folder / "trainer.json")["supervisor"], signal.SIGTERM)
    wait_until(lambda: read_json(folder / "ended.json"), "the ending")
    assert status(cli, folder)["status"] == "Stopped"
