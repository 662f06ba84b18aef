"""CSV as spreadsheets, databases and libraries write it: read as meant, and each oddity named."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudft.data.checks.check import check_data
from cloudft.data.checks.validator import _FilePass
from cloudft.data.findings import Findings
from cloudft.data.formats.record import Conversation
from cloudft.data.records import read_records
from cloudft.data.sources.byte_repair import repair_text
from cloudft.data.sources.csv_dialect import determine_dialect
from cloudft.data.sources.source_files import SourceResolver
from cloudft.spec.model import DataSpec
from cloudft.types import Finding

OURS = {"prompt": "text", "completion": "label"}
NUMBERED = {"prompt": "column_1", "completion": "column_2"}
Read = tuple[list[tuple[str, str]], list[Finding]]


def read(folder: Path, raw: bytes, columns: dict[str, str] | None, name: str = "x.csv") -> Read:
    """Return the pairs of a file as they would be trained on, and what check says of it."""
    (folder / name).write_bytes(raw)
    data = DataSpec.model_validate({"train": name, "columns": columns or {}})
    report = check_data(data, format="converse", base_dir=folder)
    findings = Findings()
    [source] = SourceResolver(folder, findings).resolve("data.train", [name])
    pairs = [
        (located.record.turns[0].text, located.record.answer)
        for located in read_records([source], findings, columns or {})
        if isinstance(located.record, Conversation)
    ]
    assert report.volumes is None or report.volumes["train"].records == len(pairs)
    return pairs, list(report.findings)


PAIRS = [("Hello, you", "Hi; there"), ("a", "b")]


@pytest.mark.parametrize(
    ("name", "text", "columns", "codes"),
    [
        ("x.csv", 'prompt;completion\n"Hello, you";"Hi; there"\na;b\n', None, ["CsvDialect"]),
        ("x.csv", "prompt\tcompletion\nHello, you\tHi; there\na\tb\n", None, ["CsvDialect"]),
        ("x.tsv", 'prompt,completion\n"Hello, you",Hi; there\na,b\n', None, ["CsvDialect"]),
        ("x.csv", "prompt|completion\nHello, you|Hi; there\na|b\n", None, ["CsvDialect"]),
        ("x.csv", 'sep=;\r\nprompt;completion\r\nHello, you;"Hi; there"\r\na;b', None, None),
        ("x.csv", 'prompt, completion\n"Hello, you", "Hi; there"\na, b\n', None, ["CsvDialect"]),
        ("x.csv", 'prompt,completion\r\n"Hello, you",Hi; there\r\na,b\r\n', None, []),
        ("x.csv", '\ufeffprompt,completion\n"Hello, you",Hi; there\na,b\n', None, ["Bom"]),
        ("x.csv", '"Hello, you",Hi; there\na,b\n', NUMBERED, ["NoHeader"]),
        # Excel: columns and rows in which there is nothing, at any side.
        (
            "x.csv",
            ',prompt,completion,,\n,"Hello, you",Hi; there,,\n,,,,\n,a,b,,\n',
            None,
            ["EmptyRows", "UnnamedColumns"],
        ),
        ("x.csv", ',,\nprompt,completion,\n"Hello, you",Hi; there,\na,b,\n', None, None),
        ("x.csv", 'prompt,completion\n"Hello, you",Hi; there,,\na,b,,\n', None, []),
        # pandas' index, with a name and without.
        ("x.csv", ',text,label\n0,"Hello, you",Hi; there\n1,a,b\n', OURS, ["UnnamedColumns"]),
        ("x.csv", ',prompt,completion\n0,"Hello, you",Hi; there\n1,a,b\n', None, None),
        ("x.csv", 'Unnamed: 0,prompt,completion\n0,"Hello, you",Hi; there\n1,a,b\n', None, None),
        ("x.csv", 'text,,label\n"Hello, you",some text,Hi; there\na,,b\n', OURS, None),
        # Files that were joined.
        (
            "x.csv",
            'prompt,completion\n"Hello, you",Hi; there\nprompt,completion\na,b\n',
            None,
            ["RepeatedHeader"],
        ),
    ],
)
def test_a_table_is_read_as_it_is_meant(
    tmp_path: Path, name: str, text: str, columns: dict[str, str] | None, codes: list[str] | None
) -> None:
    pairs, findings = read(tmp_path, text.encode(), columns, name)
    assert pairs == PAIRS
    found = [finding.code for finding in findings if finding.code != "ReadAs"]
    assert codes is None or sorted(found) == codes
    assert all(f.severity != "error" for f in findings)
    assert all(f.code in found or f.code == "ReadAs" for f in findings)


def test_tabs_need_no_quotes_so_quotes_are_text(tmp_path: Path) -> None:
    pairs, [note] = read(tmp_path, b'prompt\tcompletion\n"Hi" he said\tb\nc\t"d\n', None, "x.tsv")
    assert pairs == [('"Hi" he said', "b"), ("c", '"d')]
    assert (note.severity, note.code) == ("note", "CsvDialect")
    pairs, _ = read(tmp_path, b'prompt\tcompletion\n"a\tb"\t"c ""d"""\n', None, "y.tsv")
    assert pairs == [("a\tb", 'c "d"')]


NO_HEADER = [
    (["I paid twice", "billing"], ["I can not log in", "login"], ["Again twice", "billing"]),
    (["What is the capital of France, and how many people live there?", "Paris"], ["b", "c"]),
    (["How do I log in", "You press the button"], ["a b c d", "e f g h"]),
]


@pytest.mark.parametrize("rows", NO_HEADER)
def test_without_a_header_no_record_is_lost_and_none_is_shown(
    tmp_path: Path, rows: list[list[str]]
) -> None:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    raw = text.getvalue().encode()
    _, findings = read(tmp_path, raw, None)
    assert [f.code for f in findings] == ["NoHeader", "WrongKeys"]
    shown = " ".join(f"{f.message} {f.fix}" for f in findings)
    assert not any(cell in shown for row in rows for cell in row if len(cell) > 5)
    assert "data.columns: {prompt: column_1, completion: column_2}" in shown
    pairs, findings = read(tmp_path, raw, NUMBERED)
    assert pairs == [tuple(row) for row in rows]
    assert all(f.severity == "note" for f in findings)


@pytest.mark.parametrize(
    "header",
    [
        "Timestamp,What would you like to ask us about your order today?,The expected answer",
        "0,1",
        "frage,antwort",
        "Question,Expected answer of a good clerk who knows all about our shop and its rules",
        "id,text",
    ],
)
def test_names_of_columns_are_no_record(tmp_path: Path, header: str) -> None:
    width = header.count(",") + 1
    rows = "".join(",".join(f"some text {i} {n}" for n in range(width)) + "\n" for i in range(3))
    _, findings = read(tmp_path, f"{header}\n{rows}".encode(), None)
    assert "NoHeader" not in [f.code for f in findings]


def test_a_header_of_sentences_is_one_if_the_job_names_it(tmp_path: Path) -> None:
    columns = {"prompt": "What does the customer say?", "completion": "What do you answer to that?"}
    raw = f"{','.join(columns.values())}\na,b\n".encode()
    pairs, _ = read(tmp_path, raw, columns)
    assert pairs == [("a", "b")]


@pytest.mark.parametrize(
    ("raw", "code", "line", "said"),
    [
        (b"prompt,\na,b\n", "WrongColumns", 1, "a column without a name"),
        (b",text,label\n1,a,b\nx,c,d\n", "WrongColumns", 1, "a column without a name"),
        (b"prompt,completion,\na,b,\n" * 200 + b"a,b,c\n", "WrongColumns", 401, "no name"),
        (b"Export of today\n\nprompt,completion\na,b\nc,d\n", "WrongColumns", 1, "lines above"),
        (b"prompt,completion\na\n", "WrongColumns", 2, "1 cells under 2"),
        (b"prompt,completion\na,b,c\n", "WrongColumns", 2, "3 cells under 2"),
    ],
)
def test_what_has_no_one_reading_is_refused(
    tmp_path: Path, raw: bytes, code: str, line: int, said: str
) -> None:
    _, findings = read(tmp_path, raw, None)
    [error] = [f for f in findings if f.severity == "error"]
    assert (error.code, error.line) == (code, line)
    assert said in f"{error.message} {error.fix}"


def test_the_remedy_for_old_line_ends_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    raw = "prompt,completion\rcafé,é\r".encode()
    _, [error] = read(tmp_path, raw, None, "my file.csv")
    assert error.severity == "error" and error.fix
    command = error.fix.split("`")[1]
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    [copy] = set(tmp_path.iterdir()) - {tmp_path / "my file.csv"}
    pairs, _ = read(tmp_path, copy.read_bytes(), None, copy.name)
    assert pairs == [("café", "é")]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_another_encoding_is_one_error_that_names_it(tmp_path: Path, encoding: str) -> None:
    raw = ("prompt,completion\n" + "café,é\n" * 50).encode(encoding)
    _, [error] = read(tmp_path, raw, None)
    assert (error.severity, error.code) == ("error", "NotUtf8")
    assert "cloudft check --fix" in (error.fix or "")


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_the_remedy_for_another_encoding_works(tmp_path: Path, encoding: str) -> None:
    raw = "prompt,completion\ncafé,é\n".encode(encoding)
    _, [error] = read(tmp_path, raw, None)
    assert error.fix is not None and "`cloudft check --fix DIR`" in error.fix
    copy = b"".join(repair_text(io.BytesIO(raw), lambda _: None, 1000))  # type: ignore[arg-type]
    pairs, _ = read(tmp_path, copy, None)
    assert pairs == [("café", "é")]


def test_a_fault_after_good_rows_has_its_line_and_they_count(tmp_path: Path) -> None:
    good = "".join(f"question {n},answer {n}\n" for n in range(1500))
    for bad, code in (('"a"b,c\n', "BadCsv"), ("a,b,c\n", "WrongColumns"), (" ,b\n", "EmptyField")):
        _, [error] = read(tmp_path, f"prompt,completion\n{good}{bad}".encode(), None)
        assert (error.code, error.line) == (code, 1502)


def test_a_column_that_is_first_filled_in_later_is_left_out_with_a_warning(
    tmp_path: Path,
) -> None:
    rows = ["a,b,"] * 700 + ["a,b,Be kind."] + ["a,b,"] * 3
    raw = "\n".join(["text,label,system", *rows]).encode()
    _, findings = read(tmp_path, raw, OURS)
    assert "ColumnLeftOut" in [finding.code for finding in findings]


CHAT = [{"role": "user", "content": 'it\'s "so"'}, {"role": "assistant", "content": "yes"}]


@pytest.mark.parametrize("column", ["messages", "conversations", "chat"])
@pytest.mark.parametrize("as_text", [json.dumps, str], ids=["json", "python"])
def test_a_cell_with_a_chat_is_a_chat(tmp_path: Path, column: str, as_text: Any) -> None:
    """pandas writes lists as Python prints them."""
    columns = {"messages": "chat"} if column == "chat" else None
    text = io.StringIO()
    csv.writer(text).writerows([["id", column], ["1", as_text(CHAT)]])
    pairs, findings = read(tmp_path, text.getvalue().encode(), columns)
    assert pairs == [(CHAT[0]["content"], "yes")]
    assert all(finding.severity == "note" for finding in findings)


def test_a_list_as_numpy_prints_it_is_refused_with_a_way_out(tmp_path: Path) -> None:
    """The datasets library writes lists so (`to_csv`), and long ones in part."""
    cell = "[{'role': 'user', 'content': 'q'} {'role': 'assistant', 'content': 'a'}]"
    _, [error] = read(tmp_path, f'messages\n"{cell}"\n'.encode(), None)
    assert (error.code, error.line) == ("WrongType", 2)
    assert "to_json" in (error.fix or "")


def test_other_cells_are_text_whatever_they_hold(tmp_path: Path) -> None:
    pairs, _ = read(tmp_path, b'prompt,completion\n[1],"{""a"": 1}"\n[2],{}\n', None)
    assert pairs == [("[1]", '{"a": 1}'), ("[2]", "{}")]


CELLS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(str.strip)
TEXTS = st.lists(st.one_of(CELLS, st.sampled_from(["\n", ",", ";", "\t", "|", '"'])), min_size=1)
TEXT = TEXTS.map("".join).filter(lambda text: text.strip() == text != "")


@given(
    st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=20),
    st.sampled_from(",;\t|"),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([("prompt", "completion"), ("text", "label"), ("id", "note")]),
)
def test_any_table_is_read_back(
    rows: list[tuple[str, str]], delimiter: str, quoting: Any, end: str, header: tuple[str, str]
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=end)
    writer.writerows([header, *rows])
    lines = list(io.StringIO(text.getvalue(), newline="\n"))
    dialect, _ = determine_dialect(lines, ",")
    assert dialect.delimiter == delimiter
    assert list(dialect.reader(lines)) == [list(header), *map(list, rows)]


ROWS = st.lists(st.lists(st.sampled_from(["a", "b c", " ", "", "x\ny"]), min_size=1, max_size=3))


@given(ROWS, st.sampled_from([None, OURS]))
def test_rows_are_the_same_in_groups_and_singly(
    rows: list[list[str]], columns: dict[str, str] | None
) -> None:
    text = io.StringIO()
    header = list((columns or {"prompt": "prompt", "completion": "completion"}).values())
    csv.writer(text).writerows([header, *rows])
    raw = text.getvalue().encode()
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        grouped = read(Path(folder), raw, columns)
        patch.setattr(_FilePass, "_take_rows", lambda *_: False)
        assert read(Path(folder), raw, columns) == grouped
