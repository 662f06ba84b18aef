"""Evaluations add up: a new one keeps what older ones found; `compare` finds matching ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cloudft.cli.commands.evaluate import evaluation_text
from cloudft.errors import DamagedJob, JobStateConflict
from cloudft.evaluate.compare import ModelResult, compare_models
from cloudft.evaluate.history import (
    choose_evaluations,
    combine_evaluations,
    load_combined_evaluation,
    load_evaluations,
)
from cloudft.evaluate.results import Evaluation, save_evaluation

MODELS = {"base": "sha-b", "tuned": "sha-t"}


def evaluation(day: int, data: str = "test", keys: str = "abcd", **more: Any) -> Any:
    records = [
        {
            "key": key,
            "file": f"{data}.jsonl",
            "line": line,
            "prompt": key,
            "reference": "yes",
            "base": {"text": "no", "score": 0.0},
            "tuned": {"text": "yes", "score": 1.0},
        }
        for line, key in enumerate(keys, 1)
    ]
    delta = {"value": 1.0, "low": 0.4, "high": 1.0}
    return {
        "version": 1,
        "job": "job",
        "createdAt": f"2026-11-{day:02}T10:00:00.000+00:00",
        "data": {"sha256": f"{data}-{keys}", "role": "given", "files": [f"{data}.jsonl"]},
        "task": "classification",
        "n": len(records),
        "metric": "accuracy",
        "base": {"accuracy": 0.0},
        "tuned": {"accuracy": 1.0},
        "delta": {"accuracy": delta},
        "significance": {
            "test": "McNemar (exact)",
            "pValue": 0.1,
            "effect": {"name": "Cohen's h", "value": 3.0},
            "fixed": 4,
            "broken": 0,
            "verdict": "no difference",
            "sentence": "No statistically significant difference.",
        },
        "slices": [],
        "records": records,
        "labels": ["no", "yes"],
        "identities": MODELS,
        "pitfalls": {},
        "warnings": [],
        **more,
    }


def diagnostic(sentence: str, **numbers: Any) -> dict[str, Any]:
    return {"level": "good", "sentence": sentence, **numbers}


def suite(task: str, figure: str, base: float) -> dict[str, Any]:
    delta = {"value": 0.0, "low": None, "high": None}
    named = {"suite": f"lm-eval:{task}", "figure": figure, "n": 40}
    return {**named, "base": base, "tuned": base, "delta": delta}


def test_a_new_evaluation_keeps_what_older_ones_found(tmp_path: Path) -> None:
    thorough = evaluation(
        1,
        pitfalls={
            "consistency": diagnostic("Consistent.", sampled={"agreement": 0.97}),
            "forgetting": diagnostic("Hardly any, before."),
        },
        suites=[suite("arc_easy", "acc", 0.3), suite("gsm8k", "exact_match,strict", 0.1)],
    )
    other = evaluation(2, "other", "xy", pitfalls={"form": diagnostic("Learned more.")})
    newest = evaluation(
        3,
        pitfalls={"forgetting": diagnostic("Hardly any.")},
        suites=[suite("arc_easy", "acc", 0.4)],
    )
    for one in (thorough, other, newest):
        save_evaluation(tmp_path, one)
    found = load_combined_evaluation(tmp_path)
    assert found["records"] == newest["records"] and found["data"] == newest["data"]
    kept = found["pitfalls"]
    assert kept["consistency"]["sampled"] == {"agreement": 0.97}
    assert kept["consistency"]["evaluatedAt"] == thorough["createdAt"]
    assert kept["forgetting"] == newest["pitfalls"]["forgetting"]
    assert kept["form"]["otherRecords"] is True and "otherRecords" not in kept["consistency"]
    shown = {(s["suite"], s["figure"]): (s["base"], s.get("evaluatedAt")) for s in found["suites"]}
    assert shown == {
        ("lm-eval:arc_easy", "acc"): (0.4, None),
        ("lm-eval:gsm8k", "exact_match,strict"): (0.1, thorough["createdAt"]),
    }
    [earlier] = found["earlier"]
    assert (earlier["n"], earlier["data"]["files"]) == (2, ["other.jsonl"])
    text = evaluation_text(found)
    for part in ("consistency (2026-11-01): Consistent.", "format (2026-11-02, other records)"):
        assert part in text
    assert "other.jsonl" in text and "lm-eval:gsm8k (2026-11-01)" in text


def test_what_was_found_of_other_weights_or_another_task_is_not_kept() -> None:
    newest = evaluation(3)
    other_weights = {"base": "sha-b", "tuned": "sha-of-a-longer-training"}
    found = {"consistency": diagnostic("Consistent."), "overfitting": diagnostic("No.")}
    older = evaluation(2, identities=other_weights, pitfalls=found, suites=[suite("t", "acc", 0.1)])
    combined = combine_evaluations([newest, older])
    assert combined["pitfalls"] == {} and "suites" not in combined
    as_text = evaluation(2, task="text", pitfalls=found)
    combined = combine_evaluations([newest, as_text])
    assert set(combined["pitfalls"]) == {"overfitting"}
    assert combined["earlier"][0]["task"] == "text"
    from_file = evaluation(4, identities={"base": None, "tuned": None})
    assert set(combine_evaluations([from_file, as_text])["pitfalls"]) == {"overfitting"}


def test_a_damaged_evaluation_is_one_warning(tmp_path: Path) -> None:
    with pytest.raises(JobStateConflict, match="not been evaluated"):
        load_evaluations(tmp_path)
    path = save_evaluation(tmp_path, evaluation(1))
    path.write_text("{")
    with pytest.raises(DamagedJob):
        load_evaluations(tmp_path)
    save_evaluation(tmp_path, evaluation(2))
    [warning] = load_combined_evaluation(tmp_path)["warnings"]
    assert warning["code"] == "DamagedEvaluation" and path.name in warning["message"]


def compared(one: list[Evaluation], other: list[Evaluation]) -> Any:
    sides = zip(("one", "other"), choose_evaluations([one, other]), (one, other), strict=True)
    return compare_models(
        [ModelResult(name, e, "tuned", is_newest=e is every[0]) for name, e, every in sides]
    )


def test_compare_uses_evaluations_on_the_same_records() -> None:
    """A newer evaluation on other records does not hide the one that matches."""
    found = compared([evaluation(1)], [evaluation(3, "other", "xy"), evaluation(2)])
    assert found["n"] == 4
    [warning] = [w for w in found["warnings"] if w["code"] == "EarlierEvaluation"]
    assert "other: its evaluation of 2026-11-02" in warning["message"]


def test_compare_uses_the_records_in_common_and_says_what_differs() -> None:
    config = {"maxNewTokens": 16, "temperature": 0.0, "topP": 1.0, "seed": 7}
    one = evaluation(1, "test", "abcd", decoding=config)
    few = evaluation(4, "few", "dz")
    other = evaluation(
        2, "more", "bcde", decoding={**config, "maxNewTokens": 64}, labels=["maybe", "yes"]
    )
    found = compared([one], [few, other])
    assert found["n"] == 3
    messages = {w["code"]: w["message"] for w in found["warnings"]}
    assert set(messages) >= {"DifferentRecords", "DifferentDecoding", "DifferentLabels"}
    assert "one 4, other 4" in messages["DifferentRecords"]
    assert "maxNewTokens 16 and 64" in messages["DifferentDecoding"]
    assert "topP" not in messages["DifferentDecoding"]
