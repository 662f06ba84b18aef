"""list, metrics, status and download, over jobs that were trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
from processes import Cli, JobFile


@pytest.fixture
def stopped_early(cli: Cli, job_file: JobFile) -> str:
    """Train a job that early stopping ends, and return its id."""
    path = job_file(
        validation=tiny.pairs(4),
        hyperparameters={"epochCount": 50},
        early_stopping={"patience": 1, "threshold": 0.9},
    )
    done = cli("submit", path, "--wait", "--output", "json")
    assert done.returncode == 0, done.stderr
    job_id: str = json.loads(done.stdout)["id"]
    return job_id


def test_a_job_is_listed_plotted_and_downloaded(
    cli: Cli, stopped_early: str, tmp_path: Path
) -> None:
    [head, row] = cli("list").stdout.splitlines()
    assert head.split()[:2] == ["JOB", "BASE"] and "LOSS" in head and "SCORE" in head
    assert row.startswith(stopped_early) and "Completed" in row
    page = cli("status", "-").stdout
    assert "stopped:    early, after step" in page and "early_stopping" in page

    plot = tmp_path / "loss.png"
    assert cli("metrics", "-", "--plot", plot).stdout == f"{plot}\n"
    assert plot.stat().st_size > 1000
    assert cli("metrics", "-").stdout.startswith("STEP")

    folder = tmp_path / "mine"
    done = cli("download", "-", folder, "--output", "json")
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert set(value["files"]) == files and "manifest.json" in files
    assert any(name.startswith("model/") for name in files)
    assert value["bytes"] == sum((folder / name).stat().st_size for name in files)
    again = cli("download", "-", folder)
    assert again.returncode == 2 and "not an empty folder" in again.stderr
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".mine")] == []


def test_several_jobs_with_one_fault_are_one_warning(
    cli: Cli, job_file: JobFile, home: Path
) -> None:
    path = job_file(records=8, hyperparameters={"epochCount": 1})
    for seed in ("1", "2"):
        assert cli("submit", path, "--wait", "--seed", seed).returncode == 0
    for job in (home / "jobs").iterdir():
        if not job.name.startswith("."):
            (job / "record.json").write_text("{}")
    done = cli("list")
    assert done.stderr.count("warning: ") == 1 and "2 jobs can't be listed" in done.stderr
