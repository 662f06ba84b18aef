"""Annotation tools' exports and data of other tasks: named, and the remedy's line makes pairs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloudft.data.formats.recognizer import parse_record
from cloudft.data.formats.record import BadRecord, Conversation, RawRecord, ToolCall

FERRY = "The ferry to Vis leaves Split at nine."
LISTED = json.dumps([{"label": "PORT", "text": "Vis"}], separators=(",", ":"))
OFFSETS = {"start_offset": 13, "end_offset": 16, "label": "PORT"}
POINTS = {"label": ["PORT"], "points": [{"start": 13, "end": 15, "text": "Vis"}]}
TASK = {
    "text": FERRY,
    "_input_hash": 5,
    "_task_hash": -7,
    "_view_id": "ner_manual",
    "answer": "accept",
}
QAS = [{"question": "When?", "id": "q1", "answers": [{"text": "at nine", "answer_start": 28}]}]
ARTICLE = {"title": "Ferries", "paragraphs": [{"context": FERRY, "qas": QAS}]}

CASES: list[tuple[str, RawRecord, str, str]] = [
    # the error's code, the record, and its prompt and answer after the remedy
    ("MarkedTexts", {**TASK, "spans": [{"start": 13, "end": 16, "label": "PORT"}]}, FERRY, LISTED),
    ("MarkedTexts", {**TASK, "tokens": [{"text": "The", "id": 0}], "spans": []}, FERRY, "[]"),
    ("MarkedTexts", {"text": FERRY, "entities": [OFFSETS], "id": 1}, FERRY, LISTED),
    ("MarkedTexts", {"id": 4, "text": FERRY, "label": [[13, 16, "PORT"]]}, FERRY, LISTED),
    ("MarkedTexts", {"content": FERRY, "annotation": [POINTS]}, FERRY, LISTED),
    ("MarkedTexts", {"tokens": ["To", "Vis"], "ner_tags": [0, 1]}, "To Vis", "To\t0\nVis\t1"),
    ("MarkedTexts", {"words": ["To", "Vis"], "ner": ["O", "B"]}, "To Vis", "To\tO\nVis\tB"),
    ("MarkedTexts", {"text": FERRY, "cats": {"TRAVEL": 1.0, "FOOD": 0.0}}, FERRY, "TRAVEL"),
    ("MarkedTexts", {**TASK, "label": "TRAVEL", "meta": {}}, FERRY, "TRAVEL"),
    ("MarkedTexts", {**TASK, "options": [{"id": "B"}], "accept": ["TRAVEL"]}, FERRY, "TRAVEL"),
    ("MarkedTexts", {"text": FERRY, "annotations": [{"label": "Trajekt"}]}, FERRY, "Trajekt"),
    (
        "MarkedTexts",
        {"text": FERRY, "question": "When?", "annotations": [{"response": "at nine"}]},
        f"{FERRY}\n\nWhen?",
        "at nine",
    ),
    (
        "RetrievalPairs",
        {"query": "ferry Vis", "positive": FERRY, "negative": "No."},
        "ferry Vis",
        FERRY,
    ),
    ("RetrievalPairs", {"query": "ferry", "pos": [FERRY], "neg": ["No.", "Nor."]}, "ferry", FERRY),
    (
        "NestedRecords",
        {"instruction": "Translate.", "instances": [{"input": FERRY, "output": "Trajekt"}]},
        f"Translate.\n\n{FERRY}",
        "Trajekt",
    ),
    ("NestedRecords", ARTICLE, FERRY, "at nine"),
    ("NestedRecords", {"version": "1.1", "data": [ARTICLE]}, FERRY, "at nine"),
    ("WrongType", {"input": ["Who?", "When?"], "output": ["Ana.", "At nine."]}, "Who?", "At nine."),
    (
        "PreferencePairs",
        {"question": "When?", "response_chosen": "At nine.", "response_rejected": "Never."},
        "When?",
        "At nine.",
    ),
]


def follow(fix: str, value: RawRecord, folder: Path) -> Conversation:
    """Return the first record after a remedy: a line of data.columns, or a command of jq."""
    if "jq -c" not in fix:
        line = re.search(r"data\.columns: \{.*\}", fix)
        assert line is not None, fix
        columns = yaml.safe_load(line[0])["data.columns"]
        return conversation(parse_record(value, columns))
    (folder / "FILE").write_text(json.dumps(value, indent=1), encoding="utf-8")
    command = re.search(r"jq -c '[^']*' FILE > (\w+\.jsonl)", fix)
    assert command is not None, fix
    subprocess.run(["bash", "-c", command[0]], cwd=folder, check=True)
    written = (folder / command[1]).read_text(encoding="utf-8").splitlines()
    return conversation(parse_record(json.loads(written[0]), {}))


def conversation(record: Any) -> Conversation:
    assert isinstance(record, Conversation)
    return record


@pytest.mark.skipif(shutil.which("jq") is None, reason="the remedies are commands of jq")
@pytest.mark.parametrize(("code", "value", "prompt", "answer"), CASES)
def test_the_remedy_makes_pairs_of_marked_texts(
    code: str, value: RawRecord, prompt: str, answer: str, tmp_path: Path
) -> None:
    with pytest.raises(BadRecord) as raised:
        parse_record(value, {})
    assert raised.value.code == code
    record = follow(raised.value.fix, value, tmp_path)
    assert prompt in record.turns[0].text
    assert answer in record.turns[-1].text


def test_every_record_of_a_file_has_the_same_error() -> None:
    values = [
        {**TASK, "spans": []},
        {**TASK, "text": "Other", "spans": [{"start": 0, "end": 4, "label": "A"}]},
    ]
    messages = set()
    for value in values:
        with pytest.raises(BadRecord) as raised:
            parse_record(value, {})
        messages.add(str(raised.value))
    assert len(messages) == 1


@pytest.mark.parametrize(
    "value",
    [
        {"text": FERRY, "entities": []},
        {"text": FERRY, "id": 3, "tokens": 9},
        {"prompt": "When?", "completion": "At nine.", "tags": ["travel"], "words": 2, "data": {}},
        {"question": "When?", "answer": "reject"},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    ],
)
def test_other_records_are_read_as_before(value: RawRecord) -> None:
    try:
        parse_record(value, {})
    except BadRecord as error:
        assert error.code == "UnusedKeys", error


def test_what_a_used_key_says_may_be_said_twice() -> None:
    value = {
        "instruction": "Answer briefly.",
        "input": "When does the ferry leave?",
        "output": "At nine.",
        "prompt": "When does the ferry leave?",
        "chosen": "At nine.",
        "text": "# Task:\nAnswer briefly.\n# Input:\nWhen does the ferry leave?\nAt nine.",
    }
    record = conversation(parse_record(value, {}))
    assert record.turns[0].text == "Answer briefly.\n\nWhen does the ferry leave?"
    assert set(record.left_out) == {"prompt", "chosen", "text"}
    with pytest.raises(BadRecord) as raised:
        parse_record({**value, "prompt": "When does the bus leave?"}, {})
    assert (raised.value.code, raised.value.field) == ("UnusedKeys", "/prompt")


def test_a_weight_of_a_record_is_not_left_out() -> None:
    with pytest.raises(BadRecord) as raised:
        parse_record({"prompt": "When?", "completion": "At nine.", "sample_weight": 2.0}, {})
    assert (raised.value.code, raised.value.field) == ("UnusedKeys", "/sample_weight")


def test_arguments_that_are_encoded_twice_are_read() -> None:
    arguments = json.dumps(json.dumps({"port": "Vis"}))
    call = {"id": "c1", "type": "function", "function": {"name": "sail", "arguments": arguments}}
    messages = [{"role": "user", "content": "Go"}, {"role": "assistant", "tool_calls": [call]}]
    record = conversation(parse_record({"messages": messages}, {}))
    assert record.turns[-1].content == (ToolCall("c1", "sail", {"port": "Vis"}),)


def test_questions_without_answers_say_what_they_are_for() -> None:
    with pytest.raises(BadRecord, match="a question without an answer") as raised:
        parse_record({"messages": [{"role": "user", "content": "When?"}]}, {})
    assert "DISTILLATION" in raised.value.fix
