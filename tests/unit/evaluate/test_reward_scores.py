"""A reinforcement job is evaluated by its own grader: both models' rewards for the same prompts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny

from cloudft.evaluate.evaluate_job import find_grader, find_warnings, job_generation_config
from cloudft.evaluate.held_out import HeldOutData, load_held_out_data
from cloudft.evaluate.inference.cached_inference import ModelAnswer
from cloudft.evaluate.metrics.intervals import paired_mean_interval
from cloudft.evaluate.metrics.significance import compare_paired
from cloudft.evaluate.reward_scores import evaluate_rewards, job_grader
from cloudft.grading import GraderFailed
from cloudft.storage.home import Home
from cloudft.storage.store import JobRecord

GRADER = """
def lambda_handler(event, context):
    return [grade(sample) for sample in event]

def grade(sample):
    answer, metadata = sample["messages"][-1]["content"], sample["metadata"]
    assert metadata["topic"] == "sums" and "answer" not in metadata
    words = {"name": "words", "value": len(answer.split()), "type": "Metric"}
    near = 1 - abs(int(answer) - int(metadata["reference_answer"])) / 10
    return {"id": sample["id"], "aggregate_reward_score": near, "metrics_list": [words]}
"""
COUNT = 40


def no_progress(label: str, done: int, total: int) -> None:
    """Show nothing."""


def make_record(folder: Path, **evaluate: Any) -> JobRecord:
    prompts = [
        {
            "messages": [{"role": "user", "content": f"{n} + 2?"}],
            "reference_answer": str(n + 2),
            "topic": "sums",
        }
        for n in range(COUNT)
    ]
    tiny.write_jsonl(folder / "test.jsonl", prompts)
    (folder / "mine.py").write_text(GRADER)
    spec = {
        "name": "rft",
        "customization_type": "REINFORCEMENT_FINE_TUNING",
        "base_model": "nova-2-lite",
        "data": {"train": str(folder / "train.jsonl"), "test": str(folder / "test.jsonl")},
        "reinforcement": {
            "grader": str(folder / "mine.py"),
            "timeout_seconds": 9,
            "hyperparameters": {"inferenceMaxTokens": 77},
        },
        "evaluate": evaluate,
    }
    return JobRecord(
        id="rft-12345678",
        name="rft",
        backend="local",
        token="",
        created_at="2026-11-30T00:00:00+00:00",
        customization_type="REINFORCEMENT_FINE_TUNING",
        base_model="nova-2-lite",
        hyper_parameters={},
        request={},
        manifest={"format": "reinforcement", "files": {}, "sha256": "0" * 64},
        estimate={},
        tags={},
        spec=spec,
        folder=folder,
    )


def answers(errors: list[int]) -> list[ModelAnswer]:
    texts = [str(n + 2 + error) for n, error in enumerate(errors)]
    return [ModelAnswer(text, 3, "stop") for text in texts]


def held_out(record: JobRecord, home: Path) -> HeldOutData:
    return load_held_out_data(record, Home(home))


def test_rewards_of_both_models_with_interval_and_test(tmp_path: Path, home: Path) -> None:
    record = make_record(tmp_path)
    held, config = held_out(record, home), job_grader(record)
    assert config is not None and config.timeout_seconds == 9
    before, after = [5, 4, 3, 2] * 10, [1, 2, 3, 0] * 10
    both = {"base": answers(before), "tuned": answers(after)}
    scores = evaluate_rewards(held, both, config, Home(home), no_progress)  # type: ignore[arg-type]
    rewards = [[1 - error / 10 for error in errors] for errors in (before, after)]
    assert scores["base"]["reward"] == pytest.approx(0.65)
    assert scores["tuned"]["reward"] == pytest.approx(0.85)
    assert scores["base"]["reward.words"] == 1
    delta = scores["delta"]["reward"]
    interval = paired_mean_interval(*rewards)
    assert interval is not None and (delta["low"], delta["high"]) == pytest.approx(interval)
    assert scores["significance"]["pValue"] == compare_paired(*rewards).p_value
    assert scores["significance"]["verdict"] == "better"
    assert [one["tuned"]["score"] for one in scores["records"]] == pytest.approx(rewards[1])
    assert [w["code"] for w in find_warnings(held, scores)] == ["TrainUnknown"]


def test_an_answer_that_the_grader_can_not_grade_is_named(tmp_path: Path, home: Path) -> None:
    record = make_record(tmp_path)
    config = job_grader(record)
    assert config is not None
    bad = answers([0] * COUNT)
    bad[17] = ModelAnswer("no number", 3, "stop")
    both = {"base": answers([0] * COUNT), "tuned": bad}
    with pytest.raises(GraderFailed, match=r"test.jsonl:18#1") as caught:
        evaluate_rewards(held_out(record, home), both, config, Home(home), no_progress)  # type: ignore[arg-type]
    assert caught.value.line == 9 and "no number" not in caught.value.message


def test_the_grader_is_the_one_that_the_job_was_trained_with(tmp_path: Path) -> None:
    record = make_record(tmp_path)
    (tmp_path / "grader.py").write_text(GRADER)
    config = job_grader(record)
    assert config is not None and config.path == tmp_path / "grader.py"
    (tmp_path / "grader.py").unlink()
    (tmp_path / "mine.py").unlink()
    assert job_grader(record) is None  # its Lambda function alone is left
    assert find_grader(record, None) is None


def test_a_task_that_is_named_is_scored_by_the_references(tmp_path: Path, home: Path) -> None:
    record = make_record(tmp_path)
    assert find_grader(record, None) is not None
    assert find_grader(record, "text") is None
    assert find_grader(make_record(tmp_path, task="text"), None) is None
    held = held_out(record, home)
    assert [example.reference for example in held.examples[:2]] == ["2", "3"]
    assert job_generation_config(record, held, None).max_new_tokens == 77
    assert job_generation_config(record, held, 5).max_new_tokens == 5


def test_a_labeled_file_is_read_as_prompts_with_references(tmp_path: Path, home: Path) -> None:
    record = make_record(tmp_path)
    given = tmp_path / "given.jsonl"
    tiny.write_jsonl(given, [tiny.pair("2 + 2?", "4")])
    [example] = load_held_out_data(record, Home(home), given).examples
    assert example.for_grader is not None
    assert dict(example.for_grader.metadata) == {"reference_answer": "4"}
    assert [m["role"] for m in example.prompt.messages] == ["user"]
    plain = replace(record, manifest={**record.manifest, "format": "converse"})
    assert load_held_out_data(plain, Home(home), given).examples[0].for_grader is None
