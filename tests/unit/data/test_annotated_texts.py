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

from cloudft.data.findings import Findings
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
        "WrongKeys",
        {"sent1": "The ferry", "ending0": "flies.", "ending1": "sails.", "label": 1},
        "The ferry\n0) flies.\n1) sails.",
        "sails.",
    ),
    (
        "UnusedKeys",
        {"question": "When?", "A": "At nine.", "B": "Never.", "answer": "A"},
        "When?\na) At nine.\nb) Never.",
        "At nine.",
    ),
    ("WrongKeys", {"translation": {"en": "Ferry", "hr": "Trajekt"}}, "Ferry", "Trajekt"),
    (
        "WrongKeys",
        {"nlu": {"examples": [{"question": "When?", "answer": "At nine."}], "synonyms": []}},
        "When?",
        "At nine.",
    ),
    (
        "WrongKeys",
        {"tag": "hours", "patterns": ["When?", "Hours?"], "responses": ["At nine."]},
        "When?",
        "At nine.",
    ),
    ("WrongKeys", {"questions": ["When?", "Hours?"], "answer": "At nine."}, "When?", "At nine."),
    ("WrongKeys", {"question": "When?", "answers": ["At nine.", "Nine."]}, "When?", "At nine."),
    ("WrongType", {"question": "When?", "answer": ["At nine.", "Nine."]}, "When?", "At nine."),
    ("WrongType", {"question": "When?", "answer": {"value": "Nine", "aliases": []}}, "W", "Nine"),
    ("WrongKeys", {"text": FERRY, "labels": ["trip", "sea"], "id": "x"}, FERRY, "trip, sea"),
    (
        "UnusedKeys",
        {"instruction": ["Shorten.", "Shorter."], "input": FERRY, "output": "At nine."},
        f"Shorten.\n\n{FERRY}",
        "At nine.",
    ),
    (
        "WrongKeys",
        {"api": "port", "call": "leaves('Vis')", "args": {"to": "Vis"}, "questions": ["When?"]},
        "When?",
        "leaves('Vis')",
    ),
    ("PreferencePairs", {"Prompt": "When?", "Chosen": "At nine.", "Rejected": "No."}, "When?", "A"),
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


def test_the_columns_of_a_remedy_are_written_as_in_the_record() -> None:
    with pytest.raises(BadRecord) as raised:
        parse_record({"Prompt": "When?", "Chosen": "At nine.", "Rejected": "Never."}, {})
    bad = raised.value
    assert (bad.fix.partition("data.columns: ")[2], bad.field) == (
        "{prompt: Prompt, completion: Chosen}",
        "/Chosen",
    )
    assert "'Chosen' and 'Rejected'" in bad.message
    record = conversation(parse_record({"Question": "When?", "Answer": "Now.", "ID": 3}, {}))
    assert record.left_out == ("ID",)


def test_a_class_number_is_no_prompt() -> None:
    value = {"title": "Ferries", "description": FERRY, "label_int": "4", "label": "Travel"}
    with pytest.raises(BadRecord) as raised:
        parse_record(value, {})
    assert raised.value.fix == "data.columns: {prompt: description, completion: label}"


def test_the_class_of_two_texts_is_not_lost() -> None:
    value = {"Quality": "1", "#1 ID": "2029631", "#1 String": FERRY, "#2 String": "At nine."}
    with pytest.raises(BadRecord) as raised:
        parse_record(value, {})
    first = 'data.columns: {prompt: "#2 String", completion: Quality, context: "#1 String"}'
    assert raised.value.fix.split(" or ")[0] == first


def test_each_set_of_nested_records_has_its_command() -> None:
    examples, synonyms = [{"text": FERRY, "intent": "ask"}], [{"value": "ferry", "synonyms": []}]
    with pytest.raises(BadRecord) as raised:
        parse_record({"nlu": {"examples": examples, "synonyms": synonyms}}, {})
    assert ".nlu.examples[]" in raised.value.fix and ".nlu.synonyms[]" in raised.value.fix


def test_single_messages_are_no_pairs_of_role_and_content() -> None:
    with pytest.raises(BadRecord, match="one message a record") as raised:
        parse_record({"role": "user", "content": "When?"}, {})
    assert "jq -cs '{messages: .}'" in raised.value.fix


def test_a_remedy_names_the_texts_that_it_leaves_out() -> None:
    with pytest.raises(BadRecord) as raised:
        parse_record({"utterance": FERRY, "tool": "sail", "tool_input": "Vis at nine"}, {})
    assert raised.value.fix.endswith(", without 'tool'")


def test_each_text_beside_a_prompt_may_be_its_answer() -> None:
    with pytest.raises(BadRecord) as raised:
        parse_record({"user_text": FERRY, "tool": "sail", "tool_input": "Vis at nine"}, {})
    lines = [
        f"data.columns: {{prompt: user_text, completion: {k}}}" for k in ("tool", "tool_input")
    ]
    assert raised.value.fix == " or ".join(lines)


def test_the_first_of_ranked_answers_is_not_the_one_to_learn() -> None:
    with pytest.raises(BadRecord) as raised:
        parse_record({"prompt": "When?", "responses": ["Never.", "At nine."], "scores": [1, 5]}, {})
    assert "jq" not in raised.value.fix


def test_a_command_for_lists_reads_records_with_one_answer_too(tmp_path: Path) -> None:
    with pytest.raises(BadRecord) as raised:
        parse_record({"question": "When?", "answer": ["At nine.", "Nine."]}, {})
    record = follow(raised.value.fix, {"question": "Where?", "answer": "Pier four."}, tmp_path)
    assert record.turns[-1].text == "Pier four."


def test_what_a_command_for_lists_leaves_out_is_named() -> None:
    with pytest.raises(BadRecord) as raised:
        parse_record({"premise": FERRY, "hypothesis": "It flies.", "labels": ["no"]}, {})
    assert raised.value.fix.endswith(", without 'hypothesis'")


def test_sizes_say_nothing_and_lists_of_texts_may() -> None:
    value: RawRecord = {"prompt": "When?", "completion": "At nine.", "image_wh": [[375, 500]]}
    assert conversation(parse_record(value, {})).left_out == ("image_wh",)
    with pytest.raises(BadRecord, match="hints"):
        parse_record({**value, "hints": ["ask the port"]}, {})


def test_the_same_keys_with_longer_texts_are_one_finding() -> None:
    findings = Findings()
    for text in ("a", "a longer one", "b"):
        with pytest.raises(BadRecord) as raised:
            parse_record({"first": text, "second": "b"}, {})
        findings.add(raised.value.code, raised.value.message, raised.value.fix, file="a.jsonl")
    assert [finding.message[:8] for finding in findings.all()] == ["no known", "2 more, "]


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
