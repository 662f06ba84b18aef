"""Files that real tools wrote (tests/exports), read as they were meant.

Written with datasets 5.2.0, DuckDB 2.0.1, pandas 3.1.1, argilla 2.8.0 and label-studio-sdk 2.1.2.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloudft.data.checks.check import check_data
from cloudft.data.findings import Findings
from cloudft.data.formats.recognizer import parse_record
from cloudft.data.formats.record import BadRecord, Conversation
from cloudft.data.records import read_records
from cloudft.data.sources.source_files import SourceResolver
from cloudft.spec.model import DataSpec

TOOLS = Path(__file__).resolve().parents[2] / "exports"
OURS = {"prompt": "text", "completion": "label"}
BILLING, LOGIN = ("I paid twice", "billing"), ("I can't log in", "login")
SEVERAL = ("I paid, and can't log in", "billing, login")
Warnings = dict[str, int]
Read = tuple[list[tuple[str, str]], Counter[str], list[str]]


def read(path: Path, columns: Mapping[str, str] | None = None) -> Read:
    """Return the pairs, how often each finding came up, and the remedies of errors."""
    data = DataSpec.model_validate({"train": path.name, "columns": columns or {}})
    report = check_data(data, format="converse", base_dir=path.parent)
    findings = Findings()
    sources = SourceResolver(path.parent, findings).resolve("data.train", [path.name])
    records = [x.record for x in read_records(sources, findings, columns or {})]
    pairs = [(r.turns[0].text, r.answer) for r in records if isinstance(r, Conversation)]
    counts = Counter[str]()
    for finding in report.findings:
        if finding.severity == "note":
            continue
        more = finding.message.partition(" more, ")[0] if finding.fix is None else ""
        counts[finding.code] += int(more) if more.isdigit() else 1
    fixes = [f.fix for f in report.findings if f.severity == "error" and f.fix]
    assert report.volumes is None or report.volumes["train"].records == len(pairs)
    return pairs, counts, fixes


@pytest.mark.parametrize(
    ("name", "columns", "pairs"),
    [
        (
            "datasets-classes.parquet",
            OURS,
            [BILLING, LOGIN, ("Where are you?", "other"), ("And when?", "login")],
        ),
        ("datasets-saved", OURS, [BILLING, LOGIN, ("Where are you?", "other")]),
        ("datasets-mixed-answers.parquet", {}, [("6 x 7?", "42"), ("Sky?", "blue")]),
        ("datasets-mixed-messages.parquet", {}, [("Hi", "Yo"), ("Hi", "Yo")]),
        ("duckdb-json.parquet", {}, [("6 x 7?", "42"), ("Sky?", "blue")]),
        ("pandas-index.csv", {}, [("6 x 7?", "42"), ("Sky, by day?", "blue")]),
        ("pandas.feather", {}, [("6 x 7?", "42"), ("Sky, by day?", "blue")]),
    ],
)
def test_tables_of_tools(name: str, columns: dict[str, str], pairs: list[tuple[str, str]]) -> None:
    if not name.endswith(".csv"):
        pytest.importorskip("pyarrow")
    found, counts, _ = read(TOOLS / name, columns)
    assert found == pairs
    assert set(counts) <= {"MixedTypes", "DuplicateRecords"}


def test_label_studio_tasks_are_read_by_their_one_text_and_their_one_answer() -> None:
    path = TOOLS / "label-studio.json"
    expected = {"SeveralLabels": 1, "NoAnswer": 3, "DifferentAnswers": 1}
    for columns in ({}, OURS):
        pairs, counts, _ = read(path, columns)
        assert pairs == [BILLING, SEVERAL]
        assert counts == expected


@pytest.mark.parametrize("name", ["label-studio.csv", "label-studio-min.json"])
def test_label_studio_rows_are_read_as_their_remedy_says(name: str) -> None:
    path = TOOLS / name
    _, _, fixes = read(path)
    assert set(fixes) == {"data.columns: {prompt: text, completion: label}"}
    pairs, counts, _ = read(path, OURS)
    assert pairs == [BILLING, SEVERAL, ("Two people", "billing"), ("Two people", "login")]
    assert counts == {"SeveralLabels": 1, "NoAnswer": 2, "DifferentAnswers": 1}


@pytest.mark.parametrize("name", ["argilla.json", "argilla-rows.jsonl", "argilla-rows.parquet"])
def test_argilla_responses_that_people_agree_on_are_answers(name: str) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    path = TOOLS / name
    responses = "label" if name.endswith(".json") else "label.responses"
    for columns in ({}, {"prompt": "text", "completion": responses}):
        pairs, counts, _ = read(path, columns)
        assert pairs == [BILLING, ("Both agree", "login")]
        assert counts == {"NoAnswer": 2, "DifferentAnswers": 1}


def task(*results: dict[str, Any], data: object = None, **annotation: object) -> dict[str, object]:
    entries = [{"from_name": "label", "to_name": "text", **result} for result in results]
    annotations = [{"id": 1, "result": entries, **annotation}]
    return {"id": 1, "data": data or {"text": "a"}, "annotations": annotations, "predictions": []}


CHOICE = {"type": "choices", "value": {"choices": ["x"]}}


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        (task(CHOICE), "x"),
        (task({"type": "textarea", "value": {"text": ["long text"]}}), "long text"),
        (task({"type": "rating", "value": {"rating": 4}}), "4"),
        (task({"type": "taxonomy", "value": {"taxonomy": [["a", "b"], ["c"]]}}), "a / b, c"),
        (task(CHOICE, data={"text": "a", "id": 3, "source": "mail"}), "x"),
        # People who differ, and the one whose answer is marked as true.
        (
            {
                "data": {"text": "a"},
                "annotations": [
                    {"result": [{"from_name": "l", "value": {"choices": ["y"]}}]},
                    {
                        "result": [{"from_name": "l", "value": {"choices": ["x"]}}],
                        "ground_truth": True,
                    },
                ],
            },
            "x",
        ),
        (
            {
                "fields": {"text": "a"},
                "responses": {"q": [{"value": 5, "user_id": "u"}]},
                "suggestions": {},
                "status": "completed",
            },
            "5",
        ),
    ],
)
def test_one_answer_to_one_input_is_a_record(value: dict[str, object], answer: str) -> None:
    record = parse_record(value, {})
    assert isinstance(record, Conversation)
    assert (record.turns[0].text, record.answer) == ("a", answer)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (task(), "NoAnswer"),
        (task(CHOICE, was_cancelled=True), "NoAnswer"),
        (task(CHOICE, CHOICE), "SeveralAnswers"),
        (task({"value": {"start": 0, "end": 1, "labels": ["PER"]}}), "UnsupportedContent"),
        (task({"value": {"x": 1.5, "rectanglelabels": ["cat"]}}), "UnsupportedContent"),
        (task(CHOICE, data={"image": "/data/upload/1/a.png"}), "UnsupportedContent"),
        (task(CHOICE, data={"headline": "some words", "body": "some text"}), "WrongKeys"),
        (task({"type": "textarea", "value": {"text": ["a", "b"]}}), "UnsupportedContent"),
        ({"data": {"text": "a"}, "annotations": [{"result": [3, {"value": 4}]}]}, "NoAnswer"),
    ],
)
def test_what_is_no_one_answer_is_refused_by_name(value: dict[str, object], code: str) -> None:
    with pytest.raises(BadRecord) as refused:
        parse_record(value, {})
    assert refused.value.code == code


def test_of_several_inputs_the_columns_name_one(tmp_path: Path) -> None:
    value = task(CHOICE, data={"headline": "some words", "body": "some text", "id": 1})
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(value) + "\n")
    _, _, [fix] = read(path)
    lines = [line.removeprefix("data.columns: ") for line in fix.split(" or ")]
    assert len(lines) == 2
    for line in lines:
        [(prompt, answer)], _, _ = read(path, yaml.safe_load(line))
        assert answer == "x" and ("some words" in prompt or "some text" in prompt)
    pairs, _, _ = read(path, {"prompt": "body", "completion": "label"})
    assert pairs == [("some text", "x")]
