"""grader test: real answers of a model, or those of a file, graded by the job's own file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from job_files import write_job_file
from processes import Cli

PROMPTS = [
    {
        "messages": [
            {"role": "system", "content": "Answer with a number."},
            {"role": "user", "content": f"{n} + 2?"},
        ],
        "reference_answer": str(n + 2),
        "topic": "sums",
    }
    for n in range(6)
]
GRADER = """
def lambda_handler(event, context):
    print("graded", len(event))
    return [{"id": s["id"], "aggregate_reward_score": reward(s)} for s in event]

def reward(sample):
    metadata, answer = sample["metadata"], sample["messages"][-1]["content"]
    assert set(metadata) == {"reference_answer", "topic"}, sorted(metadata)
    assert [m["role"] for m in sample["messages"]] == ["system", "user", "assistant"]
"""


def write_job(folder: Path, model: Path, reward: str, **reinforcement: Any) -> Path:
    (folder / "grader.py").write_text(f"{GRADER}    {reward}\n")
    return write_job_file(
        folder,
        Path("nova-2-lite"),
        records=PROMPTS,
        customization_type="REINFORCEMENT_FINE_TUNING",
        local={"model": str(model)},
        reinforcement={"grader": "grader.py", **reinforcement},
    )


def answers_file(folder: Path, answers: list[str]) -> Path:
    path = folder / "answers.jsonl"
    tiny.write_jsonl(path, [prompt | {"answers": answers} for prompt in PROMPTS])
    return path


def test_a_models_own_answers_are_sampled_graded_and_drawn(
    cli: Cli, tmp_path: Path, tiny_model: Path
) -> None:
    write_job(tmp_path, tiny_model, "return len(answer) % 7", max_hours=2)
    done = cli(
        *("grader", "test", "--prompts", "3", "--samples", "6", "--max-new-tokens", "12"),
        *("--plot", "rewards.svg", "--output", "json"),
    )
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert value["verdict"] == "ready" and value["isStandIn"]
    assert [group["line"] for group in value["groups"]] == [1, 3, 5]
    for group in value["groups"]:
        assert group["rewards"] == [len(answer) % 7 for answer in group["answers"]]
        assert len(set(group["answers"])) > 1  # sampled, not one answer six times
        assert max(group["lengths"]) <= 12
    assert value["run"]["answers"] == 2 * 6 * 4
    prices = {price["backend"]: price["usdPerHour"] for price in value["run"]["prices"]}
    assert prices["bedrock"] == 80.0 and prices["sagemaker"] < 80.0
    assert "svg" in (tmp_path / "rewards.svg").read_text()[:600]
    again = cli(
        *("grader", "test", "--prompts", "3", "--samples", "6", "--max-new-tokens", "12"),
        *("--output", "json"),
    )
    assert json.loads(again.stdout)["groups"] == value["groups"]  # by the job's seed


@pytest.mark.parametrize(
    ("reward", "code", "words"),
    [
        ("return float(answer == metadata['reference_answer'])", 0, "with different rewards"),
        ("return 0", 3, "0 of 18 answers get any reward: fine-tune first"),
        ("return 0.5", 3, "every group's rewards are equal: nothing to learn"),
        ("return 1.0", 0, "100 % of the answers get the full reward already: not needed"),
        ("return len(answer)", 0, "warning: longer answers get the higher rewards"),
        ("import random; return random.random()", 0, "take chance, time"),
    ],
)
def test_given_answers_are_judged(
    cli: Cli, tmp_path: Path, tiny_model: Path, reward: str, code: int, words: str
) -> None:
    write_job(tmp_path, tiny_model, reward)
    done = cli("grader", "test", "--answers", answers_file(tmp_path, ["2", "33", "444"]))
    assert done.returncode == code, done.stderr
    assert words in done.stdout and "80.00 USD an hour" in done.stdout


def test_a_failing_grader_is_an_error_with_its_line_and_what_it_printed(
    cli: Cli, tmp_path: Path, tiny_model: Path
) -> None:
    write_job(tmp_path, tiny_model, "raise ValueError('no number: ' + answer)")
    file = answers_file(tmp_path, ["it is a secret answer", "2"])
    done = cli("grader", "test", "--answers", file, "--output", "json")
    assert done.returncode == 3
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "GraderFailed" and error["line"] == 10
    assert error["file"].endswith("grader.py") and "answers.jsonl:1#1" in error["message"]
    assert "secret" not in error["message"]
    # The person at the terminal sees the rest.
    assert "no number: it is a secret answer" in done.stderr and "graded 1" in done.stderr


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([PROMPTS[0]], "a record without an answer to grade"),
        ([PROMPTS[0] | {"answers": []}], "a record without an answer to grade"),
        ([PROMPTS[0] | {"answers": ["2", 3]}], "an answer that is no text"),
        ([], "the file is empty"),
    ],
)
def test_a_file_without_answers_is_refused(
    cli: Cli, tmp_path: Path, tiny_model: Path, lines: list[Any], words: str
) -> None:
    write_job(tmp_path, tiny_model, "return 1")
    tiny.write_jsonl(tmp_path / "answers.jsonl", lines)
    done = cli("grader", "test", "--answers", "answers.jsonl")
    assert done.returncode in (2, 3) and words in done.stderr


def test_a_job_without_a_grader_or_a_model_here_says_what_to_write(
    cli: Cli, tmp_path: Path, tiny_model: Path
) -> None:
    path = write_job(tmp_path, tiny_model, "return 1")
    text = path.read_text()
    path.write_text(text.replace("grader: grader.py", "max_hours: 1"))
    done = cli("grader", "test")
    assert done.returncode == 2 and "names no grader" in done.stderr
    path.write_text(text.replace(f"  model: {tiny_model}\n", ""))
    done = cli("grader", "test")
    assert done.returncode == 2 and "--answers FILE" in done.stderr


def test_what_a_grader_saves_of_its_samples_can_be_graded_again(
    cli: Cli, tmp_path: Path, tiny_model: Path
) -> None:
    write_job(tmp_path, tiny_model, "return float(answer == metadata['reference_answer'])")
    event = [
        {
            "id": f"{number}",
            "messages": [*prompt["messages"], {"role": "assistant", "content": "3"}],
            "metadata": {key: prompt[key] for key in ("reference_answer", "topic")},
        }
        for number, prompt in enumerate(PROMPTS + PROMPTS)
    ]
    tiny.write_jsonl(tmp_path / "event.jsonl", event)
    done = cli("grader", "test", "--answers", "event.jsonl", "--output", "json")
    value = json.loads(done.stdout)
    assert [group["rewards"] for group in value["groups"]] == [[0, 0], [1, 1], *[[0, 0]] * 4]
