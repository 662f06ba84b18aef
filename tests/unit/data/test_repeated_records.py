"""What repeats: records within the training data, and held-out inputs that are trained on."""

from __future__ import annotations

import json
from array import array
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudft.data.checks import record_keys, repeated_keys
from cloudft.data.checks.check import check_data
from cloudft.data.staging.stage import stage_data
from cloudft.spec.model import DataSpec
from cloudft.types import Finding

Record = dict[str, Any]


def pair(prompt: str, completion: str = "x") -> Record:
    return {"prompt": prompt, "completion": completion}


def chat(prompt: str, answer: str = "x", **turn: Any) -> Record:
    user, assistant = {"role": "user", "content": prompt}, {"role": "assistant", "content": answer}
    return {"messages": [user, {**assistant, **turn}]}


def put(folder: Path, name: str, records: list[Record], **options: Any) -> None:
    (folder / name).write_text("".join(json.dumps(r, **options) + "\n" for r in records))


def check(folder: Path, format: str = "converse", **data: Any) -> dict[str, Finding]:
    """Return the warnings of a check by code; those of staging are the same."""
    spec = DataSpec.model_validate({"train": "train.jsonl", **data})
    found = check_data(spec, format=format, base_dir=folder).findings
    staged = stage_data(
        spec,
        customization_type="FINE_TUNING",
        format=format,
        seed=7,
        base_dir=folder,
        root=folder / "staged",
    )
    assert staged.findings == found
    return {finding.code: finding for finding in found if finding.severity != "note"}


@pytest.mark.parametrize("indent", [None, 1])
def test_repeated_records_are_counted_with_their_lines(tmp_path: Path, indent: int | None) -> None:
    records = [pair("a"), pair("b"), pair("a"), pair("b"), pair("b"), pair("B"), pair("b", "y")]
    put(tmp_path, "train.jsonl", records, indent=indent)
    found = check(tmp_path)
    lines = [3, 1, 4, 2, 5, 2, 7, 2]
    if indent:
        lines = [4 * line - 3 for line in lines]
    a, b, c, d, e, f, g, h = lines
    duplicates, answers = found.pop("DuplicateRecords"), found.pop("DifferentAnswers")
    assert found == {}
    assert duplicates.message.startswith(
        "3 of 7 training records repeat an earlier one"
        f" (line {a} and line {b}, line {c} and line {d}, line {e} and line {f})"
    )
    assert (duplicates.line, answers.line) == (a, g)
    assert "1 of 7 records have the input of an earlier one" in answers.message
    assert f"(line {g} and line {h})" in answers.message


def test_no_record_is_like_one_with_another_system_prompt_or_other_tools(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}
    system = chat("a")
    system["messages"].insert(0, {"role": "system", "content": "s"})
    put(tmp_path, "train.jsonl", [chat("a"), system, {**chat("a"), "tools": [tool]}, chat("s")])
    assert check(tmp_path, format="messages") == {}


@pytest.mark.parametrize("make", [pair, chat])
@pytest.mark.parametrize("name", ["test", "validation"])
def test_held_out_inputs_that_are_trained_on(tmp_path: Path, make: Any, name: str) -> None:
    put(tmp_path, "train.jsonl", [pair(f"question {n}?") for n in range(50)])
    leaked = make("Question  7?\n", "y")
    put(tmp_path, "held-out.jsonl", [make("new"), leaked, make("question 3?")])
    found = check(tmp_path, **{name: "held-out.jsonl"})
    code = {"test": "LeakedTestSet", "validation": "LeakedValidationSet"}[name]
    [finding] = found.values()
    assert (finding.code, finding.severity, finding.line) == (code, "warning", 2)
    assert finding.message.startswith(f"2 of 3 {name} inputs are in the training data too")
    train, held_out = tmp_path / "train.jsonl", tmp_path / "held-out.jsonl"
    assert f"({held_out}:2 and {train}:8, {held_out}:3 and {train}:4)" in finding.message
    put(tmp_path, "held-out.jsonl", [make("question 1?"), make("question 2?")])
    [finding] = check(tmp_path, **{name: "held-out.jsonl"}).values()
    assert finding.message.startswith(f"all 2 {name} inputs are in the training data too")


def test_general_data_leak_and_documents_do(tmp_path: Path) -> None:
    put(tmp_path, "train.jsonl", [pair(f"q{n}") for n in range(9)])
    put(tmp_path, "general.jsonl", [pair(f"g{n}") for n in range(9)])
    put(tmp_path, "test.jsonl", [pair("g5"), pair("t")])
    mix = [{"path": "general.jsonl", "share": 0.1}]
    found = check(tmp_path, test="test.jsonl", mix=mix)
    assert "1 of 2 test inputs are in data.mix too" in found["LeakedTestSet"].message
    put(tmp_path, "train.jsonl", [{"text": "one"}, {"text": "two"}, {"text": "one"}])
    put(tmp_path, "test.jsonl", [{"text": "Two"}])
    assert list(check(tmp_path, format="text", test="test.jsonl")) == [
        "DuplicateRecords",
        "LeakedTestSet",
    ]


def test_prompts_that_a_grader_judges_are_compared_whole(tmp_path: Path) -> None:
    def graded(prompt: str, reference: str = "r") -> Record:
        user = {"role": "user", "content": prompt}
        return {"messages": [user], "reference_answer": {"label": reference}}

    put(tmp_path, "train.jsonl", [graded("a"), graded("b"), graded("c")])
    put(tmp_path, "test.jsonl", [graded("b"), graded("d")])
    found = check(tmp_path, format="reinforcement", test="test.jsonl")
    assert list(found) == ["LeakedTestSet"] and "1 of 2" in found["LeakedTestSet"].message


def test_large_data_is_compared_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "train.jsonl", [pair(f"question {n}") for n in range(9)])
    put(tmp_path, "test.jsonl", [pair("Question 7"), pair("question 3")])
    for name, limit in (("CHARACTERS", 40), ("BYTES", 100)):
        with monkeypatch.context() as patched:
            patched.setattr(record_keys, f"MAX_NORMALIZED_{name}", limit)
            assert "1 of 2" in check(tmp_path, test="test.jsonl")["LeakedTestSet"].message
    assert "all 2" in check(tmp_path, test="test.jsonl")["LeakedTestSet"].message


SOME = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), max_size=30)


@given(SOME, st.lists(st.integers(0, 12), max_size=9))
def test_few_and_many_are_compared_alike(records: list[tuple[int, int]], wanted: list[int]) -> None:
    prompts = array("Q", [2**63 + prompt for prompt, _ in records])
    answers, held_out = array("Q", [a for _, a in records]), array("Q", [2**63 + w for w in wanted])
    few = repeated_keys.find_repeats(prompts, answers)
    common = repeated_keys.find_common(prompts, held_out)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(repeated_keys, "SMALL", 0)
        assert repeated_keys.find_repeats(prompts, answers) == few
        assert repeated_keys.find_common(prompts, held_out) == common
    assert few.same.records == [n for n, r in enumerate(records) if r in records[:n]]
    assert common.records == [n for n, w in enumerate(wanted) if w in {p for p, _ in records}]
