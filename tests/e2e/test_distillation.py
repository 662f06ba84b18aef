"""A student that is trained here learns the answers of a file, and of a teacher on Bedrock."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny
from endpoint import Endpoint, running_endpoint
from processes import Cli, read_json, read_jsonl

PROMPTS = [f"Where is parcel {number}?" for number in range(20)]


@pytest.fixture(scope="module")
def endpoint(tiny_model: Path) -> Iterator[Endpoint]:
    """An endpoint whose models are all the tiny one."""
    with running_endpoint("--stand-in", tiny_model) as made:
        yield made


def write_job(folder: Path, model: Path, distillation: Mapping[str, Any], **more: Any) -> Path:
    records = [{"prompt": prompt} for prompt in PROMPTS]
    records[3]["completion"] = "My own answer."
    tiny.write_jsonl(folder / "train.jsonl", records)
    spec = {
        "name": "student",
        "base_model": str(model),
        "customization_type": "DISTILLATION",
        "distillation": dict(distillation),
        "data": {"train": "train.jsonl"},
        "hyperparameters": {"epochCount": 1, "batchSize": 4},
        "local": {"device": "cpu", "dtype": "float32", "lora": {"r": 4, "alpha": 8}},
        **more,
    }
    path = folder / "cloudft.yaml"
    path.write_text(json.dumps(spec), encoding="utf-8")
    return path


def learned_answers(job: Path) -> list[str]:
    """Return the answers in the training data of a job, in order."""
    records = read_jsonl(job / "data" / "train.jsonl")
    assert all(record["messages"][-1]["role"] == "assistant" for record in records)
    return [record["messages"][-1]["content"][0]["text"] for record in records]


def submit(cli: Cli, path: Path, home: Path, *more: str, **options: Any) -> Path:
    done = cli("submit", path, "--wait", "--output", "json", *more, **options)
    assert done.returncode == 0, done.stderr
    return home / "jobs" / str(json.loads(done.stdout)["id"])


def test_the_student_learns_the_answers_in_a_file(
    cli: Cli, tmp_path: Path, home: Path, tiny_model: Path
) -> None:
    path = write_job(tmp_path, tiny_model, {"answers": "answers.jsonl"})
    answers = [tiny.pair(prompt, f"In {prompt[-3:-1]}.") for prompt in PROMPTS]
    tiny.write_jsonl(tmp_path / "answers.jsonl", answers[1:])
    done = cli("submit", path)
    assert done.returncode == 3
    assert "1 prompts have no answer" in done.stderr and "record 1 of train" in done.stderr
    tiny.write_jsonl(tmp_path / "answers.jsonl", answers)
    job = submit(cli, path, home)
    expected = [answer["completion"] for answer in answers]
    assert learned_answers(job) == [*expected[:3], "My own answer.", *expected[4:]]
    tiny.write_jsonl(tmp_path / "answers.jsonl", [{"prompt": 5, "completion": ""}])
    done = cli("check", path)
    assert done.returncode == 3 and "answers.jsonl:1" in done.stdout


def test_the_student_is_compared_with_its_base_and_its_teacher(
    cli: Cli, tmp_path: Path, home: Path, tiny_model: Path, plain_model: Path
) -> None:
    """On records that have the teacher's answer as the reference, it is right."""
    teacher = {"teacher": str(plain_model), "max_response_length": 16}
    data = {"train": "train.jsonl", "validation": 0.3}
    path = write_job(tmp_path, tiny_model, teacher, data=data)
    probe = ("--probe", "--steps", "1", "--backend", "local", "--output", "json")
    [probed] = json.loads(cli("estimate", path, *probe).stdout)
    assert probed["seconds"] > 0 and any("the teacher answers for" in n for n in probed["notes"])
    job = submit(cli, path, home)
    done = cli("evaluate", job.name, "--max-new-tokens", "16", timeout=120)
    assert done.returncode == 0, done.stderr
    assert "TEACHER" in done.stdout
    [saved] = (job / "evaluations").glob("*.json")
    found = read_json(saved)
    assert found["teacher"][found["metric"]] > found["base"][found["metric"]]


def test_bedrock_answers_each_prompt_once(
    cli: Cli, tmp_path: Path, home: Path, tiny_model: Path, aws: Endpoint
) -> None:
    teacher = {"teacher": "nova-pro", "max_response_length": 8}
    path = write_job(tmp_path, tiny_model, teacher, bedrock={"region": "us-east-1"})
    before = len(aws.calls("Converse"))
    done = cli("submit", path, "--max-cost", "0.00001")
    assert done.returncode == 6, done.stderr
    assert len(aws.calls("Converse")) == before
    job = submit(cli, path, home)
    assert len(aws.calls("Converse")) - before == len(PROMPTS) - 1
    answers = learned_answers(job)
    assert answers[3] == "My own answer."
    again = submit(cli, path, home)
    assert again == job and len(aws.calls("Converse")) - before == len(PROMPTS) - 1
    assert "distillation" not in read_json(job / "job.json")


@pytest.mark.parametrize(
    ("distillation", "code", "words"),
    [
        ({"teacher": "nova-premier"}, "ModelEndOfLife", "past its end of life"),
        ({"teacher": "nothing"}, "UnknownModel", "no model 'nothing'"),
        ({"max_response_length": 5}, "MissingValue", "needs a teacher"),
    ],
)
def test_a_teacher_that_can_not_answer_is_one_finding(
    cli: Cli,
    tmp_path: Path,
    tiny_model: Path,
    distillation: dict[str, Any],
    code: str,
    words: str,
) -> None:
    path = write_job(tmp_path, tiny_model, distillation, bedrock={"region": "us-east-1"})
    done = cli("check", path, "--output", "json")
    assert done.returncode == 3
    errors = [f for f in json.loads(done.stdout)["findings"] if f["severity"] == "error"]
    assert [(f["code"], words in f["message"], bool(f["line"])) for f in errors] == [
        (code, True, True)
    ]
