"""The trainer dies in a job of pairs: it continues with the curve of an unbroken run."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import tiny
from processes import Cli, JobFile, find_processes, kill, read_json, read_jsonl, wait_until

pytestmark = pytest.mark.usefixtures("plain_starts")
EPOCHS, STEPS = 20, 80
"""Of 16 pairs in batches of 4."""


def submit(cli: Cli, job_file: JobFile, home: Path, name: str) -> Path:
    """Submit a job and return its folder."""
    path = job_file(
        name,
        name=name,
        customization_type="PREFERENCE_OPTIMIZATION",
        preference={"method": "dpo", "beta": 0.1},
        records=tiny.preferences(16),
        validation=tiny.preferences(4),
        hyperparameters={"epochCount": EPOCHS, "learningRate": 0.001},
        local={"lora": {"r": 4, "alpha": 8, "dropout": 0.1}},
    )
    done = cli("submit", path, "--output", "json", timeout=120)
    assert done.returncode == 0, done.stderr
    return home / "jobs" / str(json.loads(done.stdout)["id"])


def curve(folder: Path, split: str = "train") -> list[tuple[int, float, float]]:
    points = [p for p in read_jsonl(folder / "metrics.jsonl") if p["split"] == split]
    return [(p["step"], p["loss"], p["rewardMargin"]) for p in points]


def test_killed_at_random_steps_it_ends_with_the_curve_of_an_unbroken_run(
    cli: Cli, job_file: JobFile, home: Path
) -> None:
    folder = submit(cli, job_file, home, "broken")
    for moment in sorted(random.Random(3).sample(range(4, STEPS - 20), 2)):
        wait_until(lambda m=moment: len(curve(folder)) >= m, f"step {moment}")
        pids = read_json(folder / "trainer.json")
        kill(pids["supervisor"])
        kill(pids["pid"])
        wait_until(lambda: not find_processes(folder.name), "both are gone")
        assert cli("resume", folder.name).returncode == 0
    whole = submit(cli, job_file, home, "whole")
    for each in (whole, folder):
        assert cli("watch", each.name, timeout=200).returncode == 0
    assert len(curve(folder)) == STEPS
    for split in ("train", "validation"):
        expected = [pytest.approx(point, abs=1e-4) for point in curve(whole, split)]
        assert curve(folder, split) == expected
    log = (whole / "trainer.log").read_text()
    assert "reference log-probabilities of 32 sequences are kept" in log, "the other job has them"
