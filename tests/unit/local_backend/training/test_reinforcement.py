"""Jobs that learn from rewards, end to end with a grader of their own, and what they refuse."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reinforcement_jobs as jobs
from trainer_run import TrainerRun, run_trainer

from local_backend.job_dir import JobDir
from local_backend.settings import read_settings
from local_backend.training.probe import probe, report_memory
from local_backend.training.reinforcement import monitor
from local_backend.training.reinforcement.advantages import compute_advantages, dead_groups
from local_backend.training.reinforcement.bootstrap import bootstrap_gain

Learn = Callable[..., TrainerRun]


@pytest.fixture
def learn(tmp_path: Path, tiny_model: Path) -> Learn:
    """Return a function that writes a reinforcement job and trains it; see reinforcement_jobs."""
    numbers = itertools.count()

    def write_and_run(records: int = 16, held_out: int = 8, **changes: Any) -> TrainerRun:
        data = {"train": jobs.prompts(records)}
        if held_out:
            data["validation"] = jobs.prompts(held_out)
        folder = tmp_path / f"run-{next(numbers)}"
        return run_trainer(jobs.write_reinforcement_job(folder, tiny_model, data, **changes))

    return write_and_run


def test_a_job_learns_what_the_grader_pays_for(learn: Learn) -> None:
    run = learn(evalSteps=2)
    assert run.status == "Completed", run.log
    points = run.curve_points()
    rewards = [point["reward"] for point in points]
    assert np.mean(rewards[-4:]) > np.mean(rewards[:4]) + 0.1
    assert {"responseLength", "entropy", "deadGroups", "clipFraction", "kl"} <= points[0].keys()
    assert points[0]["kl"] == pytest.approx(0, abs=1e-6)  # the first step samples from the base
    held_out = run.curve_points("validation")
    best = max(point["reward"] for point in held_out)
    assert run.summary["tuned"]["reward"] == best == -min(p["loss"] for p in held_out)
    low, high = run.summary["tuned"]["rewardGainInterval"]
    assert low <= run.summary["tuned"]["rewardGain"] <= high
    assert run.summary["tuned"]["rewardGain"] == best - run.summary["base"]["reward"]
    header, *rows = run.rows("training_artifacts/step_wise_training_metrics.csv")
    assert header[:5] == [
        *("step_number", "epoch_number", "training_loss", "perplexity"),
        "critic/rewards/mean",
    ]
    assert [float(row[4]) for row in rows] == pytest.approx(rewards)


def test_both_paths_learn_the_same(learn: Learn) -> None:
    options = {"beta": 0.05, "num_iterations": 2, "loss_type": "grpo"}
    packed, plain = (
        learn(8, 4, packed=path, reinforcement=options, parameters={"epochCount": 1})
        for path in (True, False)
    )
    assert packed.status == plain.status == "Completed", packed.log + plain.log
    for name in ("loss", "reward", "kl", "clipFraction", "entropy"):
        both = [[point[name] for point in run.curve_points()] for run in (packed, plain)]
        assert both[0] == pytest.approx(both[1], abs=1e-4), name
    assert packed.curve_points()[1]["kl"] > 0


def test_a_base_without_any_reward_is_refused(learn: Learn) -> None:
    run = learn(grader=jobs.PAYS_NOTHING)
    assert "0 of 96 answers got any reward: fine-tune first." in run.message
    assert "base_model: job:NAME" in run.message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"grader": "def lambda_handler(event, context):\n    raise KeyError('no')"},
            "train.jsonl",
        ),
        ({"parameters": {"maxPromptLength": 3}}, "longer than 3 tokens and would be left out"),
        ({"parameters": {"inferenceMaxTokens": 256}}, "inferenceMaxTokens is 256"),
        ({"method": "full", "reinforcement": {"beta": 0.1}}, "local.reinforcement.beta"),
    ],
    ids=["grader", "prompts", "answers", "no reference"],
)
def test_what_can_not_work_is_one_clear_error(
    learn: Learn, changes: dict[str, Any], message: str
) -> None:
    assert message in learn(held_out=0, **changes).message


def test_a_reward_that_pays_for_length_alone_is_called_hacking(learn: Learn) -> None:
    run = learn(
        grader=jobs.PAYS_FOR_LENGTH,
        parameters={"epochCount": 6, "inferenceMaxTokens": 64},
        held_out=0,
    )
    assert run.status == "Completed", run.log
    found = run.summary["rewardHacking"]
    assert found["correlation"] > 0.5 and found["rewardAfter"] > found["rewardBefore"]
    assert "reward hacking" in run.log


def point(reward: float, **others: float) -> dict[str, float | None]:
    return {"reward": reward, "deadGroups": 0.0, "entropy": 1.0, "responseLength": 10.0, **others}


def test_a_collapse_and_the_end_of_learning_are_sentences() -> None:
    rising = [point(step / 20) for step in range(20)]
    assert monitor.find_collapse(rising) is None
    assert "fell from" in str(monitor.find_collapse(rising[::-1]))
    alike = [point(0.5, entropy=1.0 if step < 10 else 0.001) for step in range(20)]
    assert "entropy collapsed" in str(monitor.find_collapse(alike))
    solved = [*rising, *(point(1.0, deadGroups=1.0) for _ in range(monitor.WINDOW))]
    assert "nothing more to learn" in str(monitor.find_end_of_learning(solved))
    assert monitor.find_end_of_learning(solved[:-1]) is None
    by_quality = [
        point(step / 20, responseLength=10.0 + step, lengthCorrelation=0.1) for step in range(20)
    ]
    assert monitor.find_reward_hacking(by_quality) is None


@pytest.mark.parametrize("scale", ["batch", "group", "none"])
def test_advantages_are_those_of_a_computation_in_double_precision(scale: str) -> None:
    rewards = np.random.default_rng(3).random((5, 4)).astype(np.float32)
    rewards[2] = 0.1
    found = compute_advantages(rewards, scale)
    for row, values in zip(found, rewards.astype(float), strict=True):
        mean = sum(values) / 4
        whole = rewards.astype(float).ravel() if scale == "batch" else values
        centre = sum(whole) / len(whole)
        deviation = (sum((x - centre) ** 2 for x in whole) / (len(whole) - 1)) ** 0.5
        divisor = 1.0 if scale == "none" else deviation + 1e-4
        assert row == pytest.approx([(x - mean) / divisor for x in values], abs=1e-9)
    assert dead_groups(rewards).tolist() == [False, False, True, False, False]


def test_the_interval_of_a_gain_holds_its_mean() -> None:
    before = [0.0] * 30
    gain, low, high = bootstrap_gain(before, [1.0] * 20 + [0.0] * 10)
    assert 0.4 < low < gain < high < 0.9
    assert bootstrap_gain(before, before) == (0.0, 0.0, 0.0)


def test_a_probe_samples_and_learns_and_leaves_the_job_as_it_was(
    tmp_path: Path, tiny_model: Path
) -> None:
    data = {"train": jobs.prompts(8), "validation": jobs.prompts(4)}
    folder = jobs.write_reinforcement_job(tmp_path / "job", tiny_model, data)
    before = sorted(folder.rglob("*"))
    replies: list[dict[str, Any]] = []
    probe(JobDir(folder), 1, replies.append)
    first, *_, last = replies
    assert first["memory"]["fits"] and first["memory"]["bytes"] > 2**28
    took = last["took"]
    assert took["steps"] == 8 and took["learnedTokens"] == 8 * 8 * 4
    assert took["seconds"] > 8 * took["secondsPerStep"] > 0
    assert sorted(folder.rglob("*")) == before


def test_longer_answers_need_more_memory(tmp_path: Path, tiny_model: Path) -> None:
    needed = []
    for tokens in (8, 96):
        folder = jobs.write_reinforcement_job(
            tmp_path / str(tokens),
            tiny_model,
            {"train": jobs.prompts(4)},
            parameters={"inferenceMaxTokens": tokens},
        )
        report_memory(
            read_settings(JobDir(folder)), lambda reply: needed.append(reply["memory"]["bytes"])
        )
    assert needed[0] < needed[1]
