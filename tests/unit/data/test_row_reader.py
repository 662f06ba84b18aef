"""Every finding that reading and converting can give, reached by a real file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from cloudft.data.checks.check import DataReport, check_data
from cloudft.spec.model import DataSpec
from cloudft.types import Finding

GOOD = b'{"prompt": "a", "completion": "b"}\n'
OTHER = b'{"prompt": "c", "completion": "b"}\n'
LFS = b"version https://git-lfs.github.com/spec/v1"
U2 = {"role": "user", "content": "r"}
U, A = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
CALL = {
    "role": "assistant",
    "tool_calls": [{"id": "c1", "function": {"name": "find", "arguments": "{}"}}],
}


def check(folder: Path, kind: str = "FINE_TUNING", **data: Any) -> DataReport:
    target = "converse" if kind == "FINE_TUNING" else "input"
    return check_data(DataSpec.model_validate(data), format=target, base_dir=folder)


def findings(folder: Path, name: str, raw: bytes, **more: Any) -> Sequence[Finding]:
    (folder / name).write_bytes(raw)
    return check(folder, train=name, **more).findings


def chat(*messages: object, **more: object) -> bytes:
    return orjson.dumps({"messages": messages, **more}) + b"\n"


@pytest.mark.parametrize(
    ("name", "raw", "code", "line", "said"),
    [
        ("x.jsonl", b"", "EmptyFile", None, "empty"),
        ("x.csv", b"", "EmptyFile", None, "empty"),
        ("x.txt", b"", "EmptyFile", None, "empty"),
        ("x.csv", b"prompt,completion\n", "NoRecords", None, "no records"),
        ("x.jsonl", GOOD + b'{"prompt": "\xe9"}\n', "NotUtf8", 2, "0xe9 at position 13"),
        ("x.csv", b"prompt,completion\na,\xe9\n", "NotUtf8", 2, "0xe9 at position 3"),
        ("x.jsonl", GOOD.decode().encode("utf-16"), "NotUtf8", 1, "UTF-16"),
        ("x.jsonl", GOOD + b'{"prompt": }\n', "BadJson", 2, "column 12"),
        ("x.jsonl", GOOD + OTHER.strip() + b' {"prompt": NaN}\n', "NotFinite", 2, "column 47"),
        ("x.jsonl", GOOD + b"{'prompt': 'a'}\n", "SingleQuotes", 2, "double quotes"),
        ("x.jsonl", b'{\n"prompt": "a",\n"completion": }\n', "BadJson", 3, "column 15"),
        ("x.jsonl", b"[" * 3000 + b"\n", "TooDeep", 1, "not JSON"),
        ("x.jsonl", GOOD + b"[" * 3000 + b"\n", "TooDeep", 2, "not JSON"),
        ("x.json", b'[{"prompt": "a",\n"completion": "b"]', "BadJson", 2, "column 18"),
        ("x.json", b"[" + GOOD, "Truncated", 2, "before the array does"),
        ("x.json", b"[" + GOOD + GOOD + b"]", "MissingComma", 2, "check --fix DIR"),
        ("x.json", b"[" + GOOD + b",]", "TrailingComma", 2, "check --fix DIR"),
        ("x.json", b"[" + GOOD + b"] x", "BadJson", 2, "behind the end"),
        ("x.json", b'["a", ' + GOOD + b"]", "NotAnObject", 1, "text"),
        (
            "x.json",
            b'{"train": [' + GOOD + b'], "test": [' + GOOD + b"]}",
            "SeveralLists",
            None,
            "--fix",
        ),
        ("x.json", b'{"system": "Be brief.", "data": [' + GOOD + b"]}", "UnusedKeys", None, "each"),
        ("x.json", b'{"data": [' + GOOD + b"]", "Truncated", 2, "around the list"),
        (
            "x.jsonl",
            LFS + b"\nsize 12\n",
            "GitLfsPointer",
            1,
            "12",
        ),
        (
            "x.parquet",
            LFS,
            "GitLfsPointer",
            1,
            "git lfs pull",
        ),
        (
            "x.csv",
            LFS,
            "GitLfsPointer",
            1,
            "git lfs pull",
        ),
        (
            "x.txt",
            LFS,
            "GitLfsPointer",
            1,
            "git lfs pull",
        ),
        ("x.jsonl", b"prompt,completion\na,b\n", "BadJson", 1, "x.csv"),
        ("x.jsonl", b"PAR1\x15\x04", "WrongFileType", 1, "x.parquet"),
        ("x.csv", b"<!doctype html>\n", "WrongFileType", 1, "web page"),
        ("x.csv", b"%PDF-1.7\n", "WrongFileType", 1, "PDF"),
        ("x.jsonl", GOOD + b'["a"]\n', "NotAnObject", 2, "a list"),
        ("x.jsonl", GOOD + b"null\n", "NotAnObject", 2, "null"),
        ("x.jsonl", GOOD + b'{"promt": "a", "completion": "b"}\n', "WrongKeys", 2, "'promt'"),
        ("x.jsonl", b'{"prompt": "a"}\n', "WrongKeys", 1, '"completion": ...'),
        ("x.jsonl", b"{}\n", "WrongKeys", 1, "none"),
        ("x.csv", b"post,reply\na,b\n", "WrongKeys", 1, "data.columns"),
        ("x.jsonl", b'{"prompt": " ", "completion": "b"}\n', "EmptyField", 1, "'prompt' is empty"),
        ("x.csv", b'prompt,completion\n"a\nb",\n', "EmptyField", 2, "'completion' is empty"),
        ("x.jsonl", b'{"prompt": "a", "completion": true}\n', "WrongType", 1, 'text: "true"'),
        ("x.csv", b"prompt,completion\na\n", "WrongColumns", 2, "1 cells under 2"),
        ("x.csv", b"prompt,prompt\na,b\n", "WrongColumns", 1, "two columns"),
        ("x.csv", b"prompt,\na,b\n", "WrongColumns", 1, "without a name"),
        ("x.csv", b'prompt,completion\n"a"b,c\n', "BadCsv", 2, "not CSV"),
        ("x.txt", b"some text", "WrongTask", 1, "CONTINUED_PRE_TRAINING"),
        ("x.jsonl", b'{"text": "a"}\n', "WrongTask", 1, "unlabeled"),
        ("x.jsonl", b'{"messages": 3}\n', "WrongType", 1, "no list"),
        ("x.jsonl", chat(), "BadTurns", 1, "no turn of a user"),
        ("x.jsonl", chat(3), "WrongType", 1, "messages[0] is no object"),
        ("x.jsonl", chat(A, U), "BadTurns", 1, "--turns move"),
        ("x.jsonl", chat(U, A, U), "BadTurns", 1, "last one must be the assistant's"),
        ("x.jsonl", chat(U, U, A), "BadTurns", 1, "turn 2"),
        ("x.jsonl", chat({"role": "narrator", "content": "q"}, A), "BadTurns", 1, "write user"),
        ("x.jsonl", chat({"role": [], "content": "q"}, A), "BadTurns", 1, "role"),
        (
            "x.jsonl",
            chat(U, {"role": "system", "content": "s"}, A),
            "BadTurns",
            1,
            "after other turns",
        ),
        ("x.jsonl", chat(U, CALL, U, A), "BadTurns", 1, "call 'find' has no result"),
        (
            "x.jsonl",
            chat({"role": "system", "content": "s"}, U, A, system="t"),
            "BadTurns",
            1,
            "two system prompts",
        ),
        ("x.jsonl", chat({"role": "user"}, A), "WrongKeys", 1, "no 'content'"),
        ("x.jsonl", chat(U, {**A, "weight": 2}), "WrongWeight", 1, "0 (context alone)"),
        ("x.jsonl", chat(U, {**A, "tool_calls": [1]}), "WrongToolCall", 1, "tool_calls"),
        ("x.jsonl", chat(U, {"role": "assistant", "content": ""}), "EmptyField", 1, "[1].content"),
        ("x.jsonl", chat(U, {"role": "assistant", "content": []}), "EmptyField", 1, "empty list"),
        ("x.jsonl", chat(U, {"role": "assistant", "content": [3]}), "WrongType", 1, "no block"),
        ("x.jsonl", chat(U, {"role": "assistant", "content": [{}]}), "WrongType", 1, "no text"),
        ("x.jsonl", chat(U, {"role": "assistant", "content": 3}), "WrongType", 1, "neither"),
        ("x.parquet", b"PAR1", None, None, None),
    ],
)
def test_a_bad_file_names_code_line_and_remedy(
    tmp_path: Path, name: str, raw: bytes, code: str | None, line: int | None, said: str | None
):
    found = [f for f in findings(tmp_path, name, raw) if f.severity != "note"]
    assert all(f.severity == "error" and f.fix for f in found)
    assert all(f.file == str(tmp_path / name) for f in found)
    if code is None:  # depends on whether pyarrow is installed
        assert found[0].code in ("ParquetUnavailable", "BadParquet")
        return
    assert [(f.code, f.line) for f in found] == [(code, line)]
    assert (said or "") in f"{found[0].message} {found[0].fix}"


@pytest.mark.parametrize("blank", [b"\n", b"  \n", b" "])
def test_a_blank_line_is_a_warning(tmp_path: Path, blank: bytes) -> None:
    [finding] = findings(tmp_path, "x.jsonl", GOOD + blank)
    assert (finding.code, finding.severity, finding.line) == ("BlankLine", "warning", 2)
    assert check(tmp_path, train="x.jsonl").volumes is not None


@pytest.mark.parametrize(
    ("raw", "records"),
    [
        (b"[" + GOOD + b"," + OTHER + b"]", 2),
        (GOOD.strip() + OTHER, 2),
        (GOOD.replace(b",", b",\n") + OTHER.replace(b",", b",\n"), 2),
        (chat(U, A)[len(b'{"messages":') : -2] + b"\n", 1),
        (b"".join(chat(u, A)[len(b'{"messages":') : -2] + b"\n" for u in (U, U2)), 2),
        (b"[" + GOOD + b"]\n[" + OTHER + b"]\n", 2),
        (b'{"data": [' + GOOD + b'], "version": 3}', 1),
        (b'{"my_set": [' + GOOD + b"]}", 1),
        (b'{"prompt": {"0": "a", "1": "c"}, "completion": {"0": "b", "1": "d"}}', 2),
        (b'{"prompt": ["a", "c"], "completion": ["b", "d"]}', 2),
        (b'{"0": {"prompt": "a", "completion": "b"}}', 1),
        (b'{"columns":["prompt","completion"],"index":[0],"data":[["a","b"]]}', 1),
    ],
)
def test_json_in_other_layouts_is_read_as_it_is(tmp_path: Path, raw: bytes, records: int) -> None:
    found = findings(tmp_path, "x.json", raw)
    assert all(f.severity == "note" for f in found), found
    volumes = check(tmp_path, train="x.json").volumes
    assert volumes is not None and volumes["train"].records == records


def test_objects_with_a_list_are_records_where_they_are_several(tmp_path: Path) -> None:
    raw = b'{"question": "q", "contexts": [{"title": "a", "text": "b"}], "answer": "x"}\n'
    for content in (raw, raw * 2):
        assert findings(tmp_path, "x.jsonl", content)[0].code == "UnusedKeys"
    table = b'{"question": ["a", "b"], "answer": ["c", "d"]}\n'
    assert all(f.severity == "error" for f in findings(tmp_path, "x.jsonl", table * 2))


def test_json_lines_in_a_text_are_records_and_lines_alone_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b'{"text": "One."}\n{"text": "Two."}\n')
    report = check(tmp_path, "CONTINUED_PRE_TRAINING", train="x.txt")
    assert [f.code for f in report.findings] == ["JsonInText"]
    assert report.volumes is not None and report.volumes["train"].records == 2
    (tmp_path / "y.txt").write_bytes(b"A whole sentence.\n" * 12)
    [finding] = check(tmp_path, "CONTINUED_PRE_TRAINING", train="y.txt").findings
    assert finding.code == "DocumentsPerLine" and "12 lines" in finding.message
    for text in (
        b"A paragraph that is\nwrapped at some column\n" * 9,
        b"Not one.\n\nNor two.\n" * 9,
    ):
        (tmp_path / "z.txt").write_bytes(text)
        assert check(tmp_path, "CONTINUED_PRE_TRAINING", train="z.txt").findings == ()


def test_labeled_records_are_no_text_to_go_on_from(tmp_path: Path):
    (tmp_path / "x.jsonl").write_bytes(GOOD)
    [finding] = check(tmp_path, "CONTINUED_PRE_TRAINING", train="x.jsonl").findings
    assert (finding.code, finding.line) == ("WrongTask", 1)
    assert "FINE_TUNING" in (finding.fix or "")


@pytest.mark.parametrize(
    ("train", "code"),
    [
        ("none.jsonl", "FileNotFound"),
        ("none/*.jsonl", "FileNotFound"),
        ("x.xlsx", "UnsupportedFileType"),
        ("bare", "UnsupportedFileType"),
        ("folder", "NoRecords"),
        ("pipe.jsonl", "FileUnreadable"),
        ("dangling.jsonl", "FileUnreadable"),
        (["x.jsonl", "*.jsonl"], "FileTwice"),
        ("~nobody-of-that-name/x.jsonl", "FileNotFound"),
        ("x" * 5000, "FileNotFound"),
    ],
)
def test_a_path_that_gives_nothing(tmp_path: Path, train: object, code: str):
    (tmp_path / "x.jsonl").write_bytes(GOOD)
    (tmp_path / "x.xlsx").write_bytes(b"x")
    (tmp_path / "bare").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    if train != ["x.jsonl", "*.jsonl"]:
        os.mkfifo(tmp_path / "pipe.jsonl")
        (tmp_path / "dangling.jsonl").symlink_to("nowhere")
    [finding] = check(tmp_path, train=train).findings
    assert (finding.code, finding.severity, finding.field) == (code, "error", "data.train")
    assert finding.fix


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission(tmp_path: Path):
    (tmp_path / "x.jsonl").write_bytes(GOOD)
    (tmp_path / "x.jsonl").chmod(0)
    [finding] = check(tmp_path, train="x.jsonl").findings
    assert finding.code == "FileUnreadable"


def test_a_read_error_is_a_finding(tmp_path: Path):
    link = tmp_path / "x.jsonl"
    link.symlink_to("/proc/self/mem")  # opens, and fails at the first byte
    [finding] = check(tmp_path, train="x.jsonl").findings
    assert finding.code == "FileUnreadable"


def test_training_on_the_test_file_is_refused(tmp_path: Path):
    (tmp_path / "x.jsonl").write_bytes(GOOD)
    [finding] = check(tmp_path, train="x.jsonl", test="./x.jsonl").findings
    assert (finding.code, finding.field) == ("FileTwice", "data.test")


def test_a_wrong_header_is_one_error(tmp_path: Path) -> None:
    rows = "".join(f"{n},a,b\n" for n in range(40_000))
    [finding] = findings(tmp_path, "x.csv", f"id,quest,reply\n{rows}".encode())
    assert (finding.code, finding.line) == ("WrongKeys", 1)
    assert finding.message.startswith("wrong header: no known format has these keys: 'id'")
    assert finding.fix is not None and "data.columns" in finding.fix


def test_a_line_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cloudft.data.sources.row_reader.MAX_RECORD_BYTES", 100)
    [finding] = findings(tmp_path, "x.jsonl", GOOD + b"x" * 101)
    assert (finding.code, finding.line) == ("RecordTooLong", 2)
    [finding] = findings(tmp_path, "x.txt", b"x" * 101)
    assert finding.code == "RecordTooLong"


def test_warnings_do_not_stop(tmp_path: Path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + GOOD + b'{"input": "c", "output": "b"}\n')
    (folder / "notes.docx").write_bytes(b"x")
    (folder / ".hidden.jsonl").write_bytes(b"broken")
    examined = check(tmp_path, train="data")
    assert {(f.code, f.severity, f.line) for f in examined.findings} == {
        ("Bom", "warning", 1),
        ("MixedShapes", "warning", 2),
        ("IgnoredFiles", "warning", None),
    }
    assert examined.volumes is not None
    assert examined.volumes["train"].records == 2


def test_prompts_of_a_distillation_may_have_answers(tmp_path: Path) -> None:
    raw = b'{"prompt": "a"}\n{"prompt": "c", "completion": "b"}\n{"prompt": "d"}\n'
    (tmp_path / "x.jsonl").write_bytes(raw)
    spec = DataSpec.model_validate({"train": "x.jsonl"})
    report = check_data(spec, format="distillation", base_dir=tmp_path)
    assert report.findings == ()
    assert report.volumes is not None
    assert report.volumes["train"].records == 3


def test_a_flood_is_cut_short_and_counted(tmp_path: Path):
    wrong = b"".join(b'{"no%d": 1}\n' % number for number in range(1000))
    found = findings(tmp_path, "x.jsonl", wrong + b"3\n")
    assert [f.code for f in found] == ["WrongKeys"] * 20 + ["NotAnObject", "WrongKeys"]
    assert found[-1].message == "980 more, 1000 in all"


def test_columns_of_the_users_own(tmp_path: Path):
    columns = {"prompt": "question", "completion": "answer"}
    raw = b"id,question,answer\n1,a,b\n"
    [note] = findings(tmp_path, "x.csv", raw, columns=columns)
    assert (note.severity, note.code) == ("note", "ReadAs")
    [finding] = findings(tmp_path, "x.csv", b"question,anwser\na,b\n", columns=columns)
    assert (finding.code, finding.field) == ("WrongKeys", "/answer")
    assert "completion: anwser" in (finding.fix or "")
    [finding] = findings(tmp_path, "x.csv", b"quest,back\nI ask,I say\n", columns=columns)
    assert "data.columns" in (finding.fix or "")


def test_a_text_that_is_not_utf8_has_line_and_column(tmp_path: Path):
    [finding] = findings(tmp_path, "x.md", b"one\ntwo \xff\n")
    assert (finding.code, finding.line) == ("NotUtf8", 2)
    assert "position 5" in finding.message
