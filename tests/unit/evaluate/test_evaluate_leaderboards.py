"""Leaderboards rank only jobs that were judged on the same data, and say who is left out."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest
from job_records import make_record

from cloudft.evaluate.leaderboards import (
    EvaluatedJob,
    load_evaluated_job,
    make_leaderboards,
)
from cloudft.evaluate.results import EVALUATIONS_FOLDER
from cloudft.storage.store import Store


def evaluation(
    right: int, data: str = "test", n: int = 40, task: str = "classification", **more: Any
) -> Any:
    """Return an evaluation in which the tuned model is right in the first `right` records."""
    records = [
        {
            "key": f"{data[:4]}{line}",
            "file": f"{data}.jsonl",
            "line": line + 1,
            "prompt": "p",
            "reference": "yes",
            "base": {"text": "yes", "score": float(line % 4 == 0)},
            "tuned": {"text": "yes", "score": float(line < right)},
        }
        for line in range(n)
    ]
    return {
        "job": "job",
        "data": {"sha256": data, "role": "given"},
        "task": task,
        "metric": "accuracy" if task == "classification" else "chrf",
        "n": n,
        "base": {"accuracy": 0.25, "chrf": 0.25},
        "tuned": {"accuracy": right / n, "chrf": right / n},
        "records": records,
        "warnings": [],
        "identities": {"base": "b" * 64, "tuned": None},
        **more,
    }


def job(name: str, *evaluations: Any) -> EvaluatedJob:
    return EvaluatedJob(name, "nova-lite", evaluations, 1.0, 60.0)


def test_jobs_on_the_same_data_are_ranked_with_their_base_once() -> None:
    found = make_leaderboards(
        [job("first", evaluation(20)), job("best", evaluation(38)), job("later", evaluation(22))]
    )
    [board] = found.boards
    rows = [(row["name"], row["score"]) for row in board.report["leaderboard"]]
    assert rows == [("best", 0.95), ("later", 0.55), ("first", 0.5), ("nova-lite (base)", 0.25)]
    assert all(row["low"] is not None for row in board.report["leaderboard"])
    assert "best is better" in (board.comparison_of("best") or "")
    assert "No statistically significant" in (board.comparison_of("later") or "")
    assert board.comparison_of("first") is None
    assert (found.unranked, found.not_evaluated) == ((), ())


@pytest.mark.parametrize(
    "other", [evaluation(30, "elsewhere"), evaluation(30, task="text")], ids=["data", "task"]
)
def test_what_was_judged_otherwise_is_never_in_one_ranking(other: Any) -> None:
    found = make_leaderboards([job("a", evaluation(20)), job("b", other), job("c")])
    assert found.boards == ()
    assert [one.job for one in found.unranked] == ["a", "b"]
    assert found.not_evaluated == ("c",)
    found = make_leaderboards([job("a", evaluation(20)), job("b", other), job("d", evaluation(9))])
    assert [board.jobs for board in found.boards] == [("a", "d")]
    assert [one.job for one in found.unranked] == ["b"]


def test_an_older_evaluation_on_the_same_data_is_found_and_named() -> None:
    newest, older = evaluation(5, "elsewhere"), evaluation(30, createdAt="2026-01-01")
    found = make_leaderboards([job("a", evaluation(20)), job("b", newest, older)])
    [board] = found.boards
    assert board.jobs == ("a", "b")
    assert [one["code"] for one in board.report["warnings"]] == ["EarlierEvaluation"]


def test_records_that_all_jobs_share_are_compared_and_the_board_says_so() -> None:
    found = make_leaderboards(
        [job("a", evaluation(20, "testA", 40)), job("b", evaluation(30, "testB", 36))]
    )
    [board] = found.boards
    assert board.is_common_part and board.report["n"] == 36 and found.unranked == ()
    assert "DifferentRecords" in {one["code"] for one in board.report["warnings"]}


def test_seeds_of_one_job_have_mean_and_spread() -> None:
    jobs = [job(f"seed{n}", evaluation(20 + 4 * n)) for n in range(3)] + [job("x", evaluation(9))]
    repeats = [["seed0", "seed1", "seed2"], ["x"]]
    [board] = make_leaderboards(jobs, repeats).boards
    [spread] = board.spreads
    assert spread.jobs == ("seed0", "seed1", "seed2")
    assert (spread.low, spread.high) == (0.5, 0.7)
    assert spread.mean == pytest.approx(0.6)
    assert spread.deviation == pytest.approx(statistics.stdev([0.5, 0.6, 0.7]))


def test_a_damaged_evaluation_is_a_warning_and_no_evaluation_is_none(tmp_path: Path) -> None:
    record = make_record(Store(tmp_path), "a-00000000")
    assert load_evaluated_job(record).evaluations == []
    folder = record.folder / EVALUATIONS_FOLDER
    folder.mkdir(parents=True)
    (folder / "2026.json").write_text("{")
    loaded = load_evaluated_job(record, "2026-01-02T03:05:05.678+00:00")
    assert loaded.evaluations == [] and loaded.seconds == 60.0
    assert [one["code"] for one in loaded.warnings] == ["DamagedJob"]
