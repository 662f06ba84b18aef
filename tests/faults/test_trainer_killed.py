"""The trainer, its supervisor, or both die: the job has an honest ending and goes on from it."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path
from typing import Any

import pytest
import tiny
from processes import Cli, JobFile, find_processes, kill, read_json, read_jsonl, wait_until

pytestmark = pytest.mark.usefixtures("plain_starts")
EPOCHS, STEPS = 40, 160
"""Of 16 records in batches of 4: enough steps of a tiny model to be killed in between."""


def job(job_file: JobFile, name: str) -> Path:
    return job_file(
        name,
        name=name,
        records=16,
        validation=tiny.pairs(4),
        hyperparameters={"epochCount": EPOCHS},
        local={"lora": {"r": 4, "alpha": 8, "dropout": 0.1}},
    )


def submit(cli: Cli, path: Path, home: Path, *more: str) -> Path:
    """Submit a job and return its folder."""
    done = cli("submit", path, *more, "--output", "json", timeout=120)
    assert done.returncode == 0, done.stderr
    return home / "jobs" / str(json.loads(done.stdout)["id"])


def status(cli: Cli, folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(cli("status", folder.name, "--output", "json").stdout)
    return value


def ended(cli: Cli, folder: Path) -> dict[str, Any] | None:
    state = status(cli, folder)
    return None if state["status"] == "InProgress" else state


def steps_done(folder: Path) -> int:
    return len([p for p in read_jsonl(folder / "metrics.jsonl") if p["split"] == "train"])


def curve(folder: Path) -> list[tuple[str, int, int, float]]:
    return [
        (p["split"], p["step"], p["epoch"], p["loss"]) for p in read_jsonl(folder / "metrics.jsonl")
    ]


def test_killed_again_and_again_it_ends_with_the_curve_of_an_unbroken_run(
    cli: Cli, job_file: JobFile, home: Path
) -> None:
    whole = submit(cli, job(job_file, "whole"), home)
    folder = submit(cli, job(job_file, "broken"), home)
    moments = sorted(random.Random(5).sample(range(10, STEPS - 60), 3))
    for number, moment in enumerate(moments):
        wait_until(lambda m=moment: steps_done(folder) >= m, f"step {moment}")
        pids = read_json(folder / "trainer.json")
        if number == 1:
            kill(pids["supervisor"])
        kill(pids["pid"])
        wait_until(lambda: not find_processes(folder.name), "both are gone")
        state = wait_until(lambda: ended(cli, folder), "its lock is gone with it")
        assert state["status"] == "Failed"
        assert state["statusDetails"]["trainingDetails"] == "Failed"
        assert "SIGKILL" in state["failureMessage"]
        assert "Last log lines:\n" in state["failureMessage"]
        assert state["artifacts"] is None
        assert cli("resume", folder.name).returncode == 0
        assert status(cli, folder)["status"] == "InProgress"
    for each in (whole, folder):
        assert cli("watch", each.name, timeout=120).returncode == 0

    expected, actual = curve(whole), curve(folder)
    assert [point[:3] for point in actual] == [point[:3] for point in expected]
    assert [point[3] for point in actual] == pytest.approx([p[3] for p in expected], abs=1e-4)
    assert steps_done(folder) == STEPS
    files = [
        {str(p.relative_to(f)) for p in f.rglob("*") if "earlier" not in p.parts}
        for f in (whole, folder)
    ]
    assert files[0] == files[1], "nothing is missing and nothing half-written is left"
    assert "resuming after step" in (folder / "trainer.log").read_text()


@pytest.mark.parametrize("who", ["supervisor", "pid"])
def test_sigterm_is_a_stop_and_leaves_a_checkpoint(
    cli: Cli, job_file: JobFile, home: Path, who: str
) -> None:
    folder = submit(cli, job(job_file, "stopped"), home)
    wait_until(lambda: steps_done(folder) > 5, "some steps")
    kill(read_json(folder / "trainer.json")[who], signal.SIGTERM)
    wait_until(lambda: (folder / "ended.json").exists(), "the ending")
    state = status(cli, folder)
    assert (state["status"], state["failureMessage"]) == ("Stopped", None)
    assert state["statusDetails"]["trainingDetails"] == "Stopped"
    done = steps_done(folder)
    assert [path.name for path in (folder / "checkpoints").glob("step-*")][-1:] == [
        f"step-{done:08d}"
    ]


def test_sigterm_before_the_trainer_listens_is_a_stop_too(
    cli: Cli, job_file: JobFile, home: Path
) -> None:
    folder = submit(cli, job(job_file, "early"), home)
    first = wait_until(lambda: read_json(folder / "trainer.json"), "the trainer's pid")
    for who in ("supervisor", "pid"):
        kill(first[who])
    wait_until(lambda: not find_processes(folder.name), "both are gone")
    (folder / "state.json").unlink(missing_ok=True)
    # A resumed trainer imports everything itself before it listens.
    assert cli("resume", folder.name).returncode == 0
    pids = wait_until(
        lambda: (now := read_json(folder / "trainer.json")) != first and now, "the next trainer"
    )
    assert not (folder / "state.json").exists()
    kill(pids["pid"], signal.SIGTERM)
    wait_until(lambda: (folder / "ended.json").exists(), "the ending")
    assert status(cli, folder)["status"] == "Stopped"


def test_the_trainer_dying_by_another_signal_is_reported_by_its_name(
    cli: Cli, job_file: JobFile, home: Path
) -> None:
    folder = submit(cli, job(job_file, "crashed"), home)
    pids = wait_until(lambda: read_json(folder / "trainer.json"), "the trainer's pid")
    kill(pids["pid"], signal.SIGSEGV)
    wait_until(lambda: (folder / "ended.json").exists(), "the ending")
    assert "killed by SIGSEGV" in status(cli, folder)["failureMessage"]
    assert read_json(folder / "ended.json")["signal"] == "SIGSEGV"
