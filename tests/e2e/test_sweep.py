"""A sweep from the command line: trials that really train, and the files that it leaves."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from processes import Cli, JobFile

from cloudft.spec.load import load_job

pytest.importorskip("optuna")
pytest.importorskip("torch")

COMMENT = "# found by hand"


def write_job(job_file: JobFile, **options: Any) -> Path:
    """Write the job file of a sweep, with a comment in it."""
    sweep = {
        "space": {
            "learningRate": {"low": 1e-4, "high": 3e-2, "log": True},
            "local.lora.r": [2, 4],
        },
        "trials": 5,
        "seeds": 1,
        "repeat_best": 1,
    }
    validation = tiny.pairs(20)[16:]
    path = job_file(validation=validation, sweep=sweep | options, data={"test": "test.jsonl"})
    tiny.write_jsonl(path.parent / "test.jsonl", tiny.pairs(24)[20:])
    text = path.read_text().replace("learningRate: 0.01", f"learningRate: 0.01  {COMMENT}")
    path.write_text(text)
    return path


def test_a_sweep_finds_better_values_and_writes_them(
    cli: Cli, job_file: JobFile, home: Path, tmp_path: Path
) -> None:
    job = write_job(job_file)
    planned = json.loads(cli("sweep", job, "--dry-run", "--output", "json").stdout)
    assert planned["trials"] == 5 and planned["trialsDone"] == 0
    assert not (home / "sweeps").exists()
    best = tmp_path / "job" / "best.yaml"
    done = cli("sweep", job, "--write", best, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "own values" in done.stdout and "what moves the score" in done.stdout
    assert "trial 0:" in done.stderr and "trial 4:" in done.stderr
    [folder] = (home / "sweeps").iterdir()
    result = json.loads((folder / "result.json").read_text())
    check_files(result, folder, job, best)
    check_jobs(cli, result, home)


def check_files(result: dict[str, Any], folder: Path, job: Path, best: Path) -> None:
    """Check table, picture and job file against the result."""
    rows = list(csv.DictReader((folder / "trials.csv").read_text().splitlines()))
    assert len(rows) == len(result["trials"]) + len(result["repeats"])
    assert [row["trial"] for row in rows[:5]] == ["0", "1", "2", "3", "4"]
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert COMMENT in best.read_text() and COMMENT in job.read_text()
    spec, own = load_job(best).spec, load_job(job).spec
    values = next(one for one in result["trials"] if one["number"] == result["best"])["values"]
    assert spec.hyperparameters["learningRate"] == values["learningRate"]
    assert spec.local.lora.r == values["local.lora.r"]
    assert spec.data == own.data and spec.sweep == own.sweep and spec.local.dtype == "float32"


def check_jobs(cli: Cli, result: dict[str, Any], home: Path) -> None:
    """Check that trials are jobs, out of the way, over one set of tokens; one model is left."""
    listed = cli("list", "--output", "json")
    assert json.loads(listed.stdout) == [] and "trials of sweeps are hidden" in listed.stderr
    ids = {one["job"] for one in result["trials"] + result["repeats"]}
    everything = json.loads(cli("list", "--all", "--output", "json").stdout)
    assert {one["id"] for one in everything} == ids
    assert {one["tags"]["sweep"] for one in everything} == {result["id"]}
    keys = {(home / "jobs" / one / "tokens.json").read_text() for one in ids}
    assert len(keys) == 1
    assert len({(home / "jobs" / one / "job.json").read_text() for one in ids}) == len(ids)
    best = next(one for one in result["trials"] if one["number"] == result["best"])
    losers = [one for one in result["trials"] if one["outcome"] == "complete" and one != best]
    answered = cli("generate", best["job"], "--prompt", "Where is parcel 1?", timeout=90)
    assert answered.returncode == 0, answered.stderr
    refused = cli("generate", losers[0]["job"], "--prompt", "Where is parcel 1?")
    assert refused.returncode == 2 and "not the best of its sweep" in refused.stderr
    status = json.loads(cli("status", losers[0]["job"], "--output", "json").stdout)
    assert status["status"] == "Completed" and status["artifacts"] is None


def test_trials_at_once_learn_as_a_submit_of_their_values(
    cli: Cli, job_file: JobFile, home: Path
) -> None:
    more = {"trials": 3, "seeds": 0, "pruning": False, "parallel_trials": 2}
    job = write_job(job_file, **more)
    done = cli("sweep", job, "--output", "json", timeout=120)
    assert done.returncode == 0, done.stderr
    for trial in json.loads(done.stdout)["trials"]:
        values = [f"hyperparameters.learningRate={trial['values']['learningRate']}"]
        values += [f"local.lora.r={trial['values']['local.lora.r']}"]
        words = [word for value in values for word in ("--set", value)]
        alone = cli("submit", job, "--wait", "--output", "json", *words, timeout=120)
        assert alone.returncode == 0, alone.stderr
        name = json.loads(alone.stdout)["id"]
        assert name != trial["job"]
        assert curve(home / "jobs" / name) == curve(home / "jobs" / trial["job"]) != []


def curve(folder: Path) -> list[tuple[str, float]]:
    """Return the losses of a job's curve."""
    points = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [(point["split"], point["loss"]) for point in points]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": {}}, "no validation data"),
        ({"sweep": None}, "no section `sweep`"),
        ({"sweep": {"space": {"preference.beta": [0.1, 0.2]}}}, "changes the training"),
    ],
)
def test_a_sweep_that_says_nothing_is_refused(
    cli: Cli, job_file: JobFile, change: dict[str, Any], words: str
) -> None:
    validation = () if "data" in change else tiny.pairs(4)
    space = {"space": {"local.lora.r": [2, 4]}}
    path = job_file(validation=validation, **{"sweep": space} | change)
    refused = cli("sweep", path)
    assert refused.returncode in (2, 3) and words in refused.stderr, refused.stderr
