"""What is detected of a person's own file, and by what evidence."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudft.data.detect import FileDetection, detect_file
from cloudft.data.findings import Findings
from cloudft.data.sources.source_files import SourceResolver


def detect(folder: Path, name: str, text: str) -> FileDetection | None:
    (folder / name).write_text(text)
    findings = Findings()
    [source] = SourceResolver(folder, findings).resolve("--data", [name])
    return detect_file(source, findings)


PAIR = '{"prompt": "a", "completion": "b"}\n'
CHAT = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'


@pytest.mark.parametrize(
    ("name", "text", "format", "columns", "evidence"),
    [
        (
            "a.jsonl",
            '{"prompt": "a", "completion": "b"}\n',
            "prompt-completion",
            {},
            "'prompt' and",
        ),
        ("a.jsonl", CHAT * 3, "messages", {}, "messages with the roles user, assistant"),
        (
            "a.csv",
            "Question,answer\na,b\n",
            "question-answer",
            {},
            "the keys 'question' and 'answer'",
        ),
        (
            "a.csv",
            "id,text,label\n1,a,b\n2,c,d\n",
            "prompt-completion",
            {"prompt": "text", "completion": "label"},
            "the columns 'text' and 'label'",
        ),
        ("a.jsonl", '{"text": "a", "url": "b"}\n', "text", {}, "the key 'text'"),
        ("a.txt", "Once upon a time.\n", "text", {}, "a .txt file, read as one text"),
    ],
)
def test_a_file_is_detected(
    tmp_path: Path, name: str, text: str, format: str, columns: dict[str, str], evidence: str
) -> None:
    detected = detect(tmp_path, name, text)
    assert detected is not None
    assert (detected.format.name, detected.columns) == (format, columns)
    assert evidence in detected.evidence
    assert detected.matched == detected.seen > 0


@pytest.mark.parametrize(
    "text",
    ["a,b\n1,2\n", "question,query,answer\na,b,c\n", "question,answer,label\na,b,c\n", "a\n"],
)
def test_columns_are_never_guessed(tmp_path: Path, text: str) -> None:
    assert detect(tmp_path, "a.csv", text) is None


@pytest.mark.parametrize(
    "text",
    [
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],'
        ' "sample_weight": 2.0}',
        '{"text": "a", "spans": [], "_task_hash": 1, "answer": "accept"}',
        '{"text": "a", "cats": {"b": 1.0}}',
        '{"text": "a", "annotations": [{"label": "b"}]}',
        '{"prompt": "a", "completion": "b", "label": false}',
    ],
)
def test_no_column_that_carries_meaning_is_left_out(tmp_path: Path, text: str) -> None:
    assert detect(tmp_path, "a.jsonl", text + "\n") is None
