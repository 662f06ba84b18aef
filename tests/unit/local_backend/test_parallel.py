"""Several processes on one job: the losses of one, one writer, and an honest end when one dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import preloaded
import pytest
import tiny
from processes import kill, lines, read_json, running, wait_until

from local_backend.job_dir import JobDir

DATA = {"train": tiny.pairs(22), "validation": tiny.pairs(5)}


def job(folder: Path, model: Path, **changes: Any) -> Path:
    return tiny.write_job_dir(folder, model, DATA, **{"batchSize": 6, "epochCount": 3, **changes})


def start(folder: Path) -> subprocess.Popen[bytes]:
    command = [preloaded.python(), "-m", "local_backend", str(folder)]
    environ = os.environ | {"OMP_NUM_THREADS": "1"}
    with (folder / "trainer.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environ)


def curve(folder: Path) -> list[tuple[str, int, float]]:
    return [(p["split"], p["step"], p["loss"]) for p in lines(folder / "metrics.jsonl")]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_two_processes_learn_what_one_does(tiny_model: Path, tmp_path: Path, method: str) -> None:
    folders = [
        job(tmp_path / str(count), tiny_model, method=method, processes=count) for count in (1, 2)
    ]
    for child in [start(folder) for folder in folders]:
        assert child.wait(120) == 0
    one, two = map(curve, folders)
    assert [point[:2] for point in two] == [point[:2] for point in one]
    assert [point[2] for point in two] == pytest.approx([p[2] for p in one], abs=1e-4)
    assert not (folders[1] / "meeting").exists()
    assert (folders[1] / "artifacts" / "result.json").is_file()


def test_one_that_dies_ends_the_job_which_goes_on_from_its_checkpoint(
    tiny_model: Path, tmp_path: Path
) -> None:
    whole = job(tmp_path / "whole", tiny_model, epochCount=30, learningRate=1e-3)
    folder = job(tmp_path / "broken", tiny_model, epochCount=30, learningRate=1e-3, processes=2)
    assert start(whole).wait(120) == 0
    supervisor = start(folder)
    wait_until(lambda: len(curve(folder)) > 30, "some steps are done")
    [other] = read_json(folder / "trainer.json")["others"]
    kill(other)
    assert supervisor.wait(60) == 1 and not running(str(folder))
    ending = JobDir(folder).ended()
    assert ending is not None and ending["status"] == "Failed"
    assert "processes is gone" in ending["failureMessage"]
    (folder / "ended.json").unlink()
    assert start(folder).wait(120) == 0
    found, expected = curve(folder), curve(whole)
    assert [point[:2] for point in found] == [point[:2] for point in expected]
    assert [p[2] for p in found] == pytest.approx([p[2] for p in expected], abs=1e-4)


def test_a_stop_stops_them_all(tiny_model: Path, tmp_path: Path) -> None:
    folder = job(tmp_path / "job", tiny_model, epochCount=400, processes=2)
    supervisor = start(folder)
    wait_until(lambda: len(curve(folder)) > 5, "some steps are done")
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(60) == 0
    ending = JobDir(folder).ended()
    assert ending is not None and ending["status"] == "Stopped"
    steps = [json.loads(p.read_text())["position"]["step"] for p in folder.rglob("position.json")]
    assert max(steps) == len([p for p in curve(folder) if p[0] == "train"])


def test_more_processes_than_records_of_a_batch_are_refused(
    tiny_model: Path, tmp_path: Path
) -> None:
    folder = job(tmp_path / "job", tiny_model, batchSize=1, processes=2)
    assert start(folder).wait(120) == 1
    ending = JobDir(folder).ended()
    assert ending is not None and "lower local.processes" in ending["failureMessage"]
