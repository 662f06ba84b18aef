"""A distillation is killed while its teacher answers and while its student trains."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import tiny
from processes import Cli, find_processes, kill, read_json, read_jsonl, wait_until
from tiny import CITIES

pytestmark = pytest.mark.usefixtures("plain_starts")
PROMPTS = 160
OWN_ANSWER = "My own answer."


def write_distillation(folder: Path, model: Path, name: str) -> Path:
    """Write a job whose teacher is a model folder; one record has its answer."""
    records = [
        {"prompt": f"Where is parcel {n} for {CITIES[n % len(CITIES)]}?"} for n in range(PROMPTS)
    ]
    records[3]["completion"] = OWN_ANSWER
    tiny.write_jsonl(folder / "train.jsonl", records)
    spec = {
        "name": name,
        "base_model": str(model),
        "customization_type": "DISTILLATION",
        "distillation": {"teacher": str(model), "max_response_length": 24, "temperature": 0.7},
        "data": {"train": "train.jsonl", "validation": 0.1},
        "hyperparameters": {"epochCount": 3, "batchSize": 8, "learningRate": 0.01},
        "local": {"device": "cpu", "dtype": "float32", "lora": {"r": 4, "alpha": 8}},
    }
    path = folder / "cloudft.yaml"
    path.write_text(json.dumps(spec), encoding="utf-8")
    return path


def submit(cli: Cli, path: Path, home: Path) -> Path:
    done = cli("submit", path, "--output", "json", timeout=120)
    assert done.returncode == 0, done.stderr
    return home / "jobs" / str(json.loads(done.stdout)["id"])


def kill_trainer(cli: Cli, folder: Path) -> None:
    kill(read_json(folder / "trainer.json")["pid"])
    wait_until(lambda: not find_processes(folder.name), "its processes are gone")
    assert cli("resume", folder.name).returncode == 0


def losses(folder: Path) -> list[float]:
    return [point["loss"] for point in read_jsonl(folder / "metrics.jsonl")]


def test_killed_while_the_teacher_answers_and_while_the_student_trains(
    cli: Cli, tmp_path: Path, tiny_model: Path, home: Path
) -> None:
    whole = submit(cli, write_distillation(tmp_path / "a", tiny_model, "whole"), home)
    folder = submit(cli, write_distillation(tmp_path / "b", tiny_model, "broken"), home)
    answers = folder / "teacher" / "answers.jsonl"
    for moment in sorted(random.Random(7).sample(range(1, PROMPTS - 40), 2)):
        wait_until(lambda m=moment: len(read_jsonl(answers)) >= m, f"{moment} answers")
        kill_trainer(cli, folder)
    answers_before = answers.read_bytes()
    with answers.open("ab") as file:  # as a kill in the middle of a write leaves it
        file.write(b'{"key": "0')
    wait_until(lambda: len(losses(folder)) >= 8, "the student trains")
    kill_trainer(cli, folder)
    for each in (whole, folder):
        assert cli("watch", each.name, timeout=120).returncode == 0

    assert answers.read_bytes().startswith(answers_before)
    keys = [line["key"] for line in read_jsonl(answers)]
    assert len(keys) == len(set(keys)) == PROMPTS - 1
    assert sorted(read_jsonl(answers), key=str) == sorted(
        read_jsonl(whole / "teacher" / "answers.jsonl"), key=str
    )
    assert losses(folder) == pytest.approx(losses(whole), abs=1e-4)
    assert OWN_ANSWER in (folder / "teacher" / "train.jsonl").read_text()
