"""A trainer that samples and grades answers is killed: it goes on as if it had not been."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import reinforcement_jobs as jobs
from processes import Cli, JobFile, find_processes, kill, read_json, read_jsonl, wait_until

pytestmark = pytest.mark.usefixtures("plain_starts")
STEPS = 20
COMPARED = ("split", "step", "epoch")
MEASURED = ("loss", "reward", "responseLength", "entropy")


def submit(cli: Cli, job_file: JobFile, tmp_path: Path, home: Path, name: str) -> Path:
    options = jobs.job_options(
        tmp_path / name,
        jobs.PAYS_FOR_A_CAPITAL,
        records=jobs.prompts(16),
        validation=jobs.prompts(4),
        hyperparameters={"epochCount": 5, "learningRate": 5e-3, "evalInterval": 3},
    )
    options["local"]["reinforcement"] = {"beta": 0.05, "num_iterations": 2}
    done = cli("submit", job_file(name, name=name, **options), "--output", "json", timeout=120)
    assert done.returncode == 0, done.stderr
    return home / "jobs" / str(json.loads(done.stdout)["id"])


def curve(folder: Path) -> list[dict[str, Any]]:
    return read_jsonl(folder / "metrics.jsonl")


def test_killed_while_it_samples_it_ends_with_the_curve_of_an_unbroken_run(
    cli: Cli, job_file: JobFile, home: Path, tmp_path: Path
) -> None:
    whole = submit(cli, job_file, tmp_path, home, "whole")
    folder = submit(cli, job_file, tmp_path, home, "broken")
    for moment in sorted(random.Random(3).sample(range(4, STEPS - 8), 2)):
        wait_until(lambda m=moment: len(curve(folder)) >= m, f"{moment} points")
        kill(read_json(folder / "trainer.json")["pid"])
        wait_until(lambda: not find_processes(folder.name), "the grader is gone with it")
        assert cli("resume", folder.name).returncode == 0
    for each in (whole, folder):
        assert cli("watch", each.name, timeout=120).returncode == 0
    expected, actual = curve(whole), curve(folder)
    assert [[p[k] for k in COMPARED] for p in actual] == [
        [p[k] for k in COMPARED] for p in expected
    ]
    for name in MEASURED:
        values = [[point[name] for point in points] for points in (expected, actual)]
        assert values[1] == pytest.approx(values[0], abs=1e-4), name
    ends = [read_json(each / "state.json")["summary"]["tuned"] for each in (whole, folder)]
    assert ends[0] == ends[1]
    assert "resuming after step" in (folder / "trainer.log").read_text()
