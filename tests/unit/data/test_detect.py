"""What is detected of a person's own file, and by what evidence."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudft.data.detect import FileDetection, detect_file
from cloudft.data.findings import Findings
from cloudft.data.formats.record import BadRecord
from cloudft.data.sources.source_files import SourceResolver


def detect(folder: Path, name: str, text: str) -> FileDetection | BadRecord | None:
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
            "the columns 'text' (prompt) and 'label' (completion)",
        ),
        ("a.jsonl", '{"text": "a", "url": "b"}\n', "text", {}, "records with the key 'text'"),
        ("a.txt", "Once upon a time.\n", "text", {}, "a .txt file, read as one text"),
    ],
)
def test_a_file_is_detected(
    tmp_path: Path, name: str, text: str, format: str, columns: dict[str, str], evidence: str
) -> None:
    detected = detect(tmp_path, name, text)
    assert isinstance(detected, FileDetection)
    assert (detected.format.name, detected.columns) == (format, columns)
    assert evidence in detected.evidence
    assert detected.matched == detected.seen > 0


@pytest.mark.parametrize(
    ("text", "ways"),
    [
        ("a,b\n1,2\n", 2),
        ("question,query,answer\na,b,c\n", 2),
        ("question,answer,label\na,b,two words\n", 1),
        ("first,second,label\na,b,c\n", 2),
        ("question,answer,notes\na,b,not in winter\n", 1),
        ("prompt_id,completion\nx1,b\n", 1),
        ("text,choice\nWhere is it?,billing\nWho is it?,\n", 2),
        ("frage,antwort,kunde\nWo?,,k1\nWann?,Um neun.,k2\n", 2),
    ],
)
def test_columns_are_never_guessed(tmp_path: Path, text: str, ways: int) -> None:
    refused = detect(tmp_path, "a.csv", text)
    assert isinstance(refused, BadRecord)
    assert refused.fix.count("data.columns: {") == ways


def test_a_file_without_records_holds_nothing(tmp_path: Path) -> None:
    assert detect(tmp_path, "a.csv", "a\n") is None
