"""A JSON file gives the same records in any layout, each with its line, however it is cut."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudft.data.findings import Findings
from cloudft.data.sources import json_rows
from cloudft.data.sources.json_layout import is_message, is_table
from cloudft.data.sources.row_reader import ReadContext, Row
from cloudft.data.sources.source_files import SourceFile

SOURCE = SourceFile(Path("x.json"), "x.json", "x.json", "jsonl")
TEXT = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(
    ["}, {", '"', "\\", '\\"', "],", "}\n{", '"}, {"prompt": "', "[{", "\n"]
)
VALUE = st.recursive(
    TEXT | st.none() | st.booleans() | st.integers(-(10**6), 10**6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": TEXT}),
    min_size=1,
    max_size=4,
)
RECORD = (
    st.fixed_dictionaries({"prompt": TEXT, "completion": TEXT})
    | st.fixed_dictionaries({"messages": MESSAGES}, optional={"id": VALUE})
    | st.fixed_dictionaries({"id": VALUE, "rest": VALUE})
)


def cut(raw: bytes, first: int, sizes: list[int]) -> Iterator[bytes]:
    """Yield a file in pieces of these sizes, over and over."""
    yield raw[:first]
    at = first
    while at < len(raw):
        size = sizes[at % len(sizes)]
        yield raw[at : at + size]
        at += size


def read(raw: bytes, first: int, sizes: list[int]) -> tuple[list[Row], Findings]:
    findings = Findings()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_rows, "SMALL_FILE", first)
        context = ReadContext(SOURCE, findings)
        rows = list(json_rows.read_json(context, cut(raw, first, sizes)))
    return rows, findings


def lay_out(values: list[object], layout: str, indent: int | None) -> tuple[bytes, list[int]]:
    """Return a file of that layout, and the line of each value."""
    before, between, behind = {
        "lines": ("", "\n", "\n"),
        "array": ("[", ",", "]"),
        "array of lines": ("[\n", ",\n", "\n]\n"),
        "sequence": ("", "\n", ""),
        "on one line": ("", " ", "\n"),
        "list under a key": ('{"version": 2, "data": [', ", ", '], "size": 3}'),
    }[layout]
    raw, lines = before, []
    for number, value in enumerate(values):
        raw += between if number else ""
        lines.append(raw.count("\n") + 1)
        raw += json.dumps(value, ensure_ascii=False, indent=indent)
    return (raw + behind).encode(), lines


@settings(max_examples=400, deadline=None)
@given(
    st.lists(RECORD, min_size=1, max_size=8) | st.lists(MESSAGES, min_size=2, max_size=4),
    st.sampled_from(["array", "array of lines", "sequence", "on one line", "list under a key"]),
    st.sampled_from([None, 1]),
    st.integers(200, 300),
    st.lists(st.integers(1, 70), min_size=1, max_size=4),
)
def test_records_and_lines_are_the_same_in_any_layout(
    values: list[object], layout: str, indent: int | None, first: int, sizes: list[int]
) -> None:
    if layout == "list under a key" and not isinstance(values[0], dict):
        return
    if layout == "list under a key" and is_message(values[0]):
        return
    if is_table(values[0]):  # lists of one length: a table by columns
        return
    raw, lines = lay_out(values, layout, indent)
    rows, findings = read(raw, first, sizes)
    assert findings.count_errors() == 0, findings.all()
    expected = [value if isinstance(value, dict) else {"messages": value} for value in values]
    assert [row.value for row in rows] == expected
    assert [row.line for row in rows] == lines


def test_conversations_on_one_line_are_read_wherever_the_first_piece_ends() -> None:
    turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A" * 180}]
    values: list[object] = [turns, [{"role": "user", "content": "only a question"}], turns]
    raw, _ = lay_out(values, "on one line", None)
    for first in range(200, len(raw) + 1):
        rows, findings = read(raw, first, [1])
        assert findings.count_errors() == 0, (first, findings.all())
        assert [row.value for row in rows] == [{"messages": value} for value in values], first


def test_a_list_under_a_key_is_read_whatever_the_length_of_the_file() -> None:
    values: list[object] = [{"prompt": f"Q{n}?", "completion": "A"} for n in range(6)]
    raw, _ = lay_out(values, "list under a key", None)
    for first in (len(raw) - 1, len(raw), len(raw) + 1):
        assert [row.value for row in read(raw, first, [70])[0]] == values


@settings(max_examples=200, deadline=None)
@given(
    st.lists(RECORD, min_size=2, max_size=6),
    st.sampled_from(["array", "array of lines"]),
    st.sampled_from([None, 1]),
    st.integers(1, 60),
    st.lists(st.integers(1, 70), min_size=1, max_size=4),
)
def test_a_cut_off_array_is_one_error_behind_whole_records(
    values: list[object], layout: str, indent: int | None, lost: int, sizes: list[int]
) -> None:
    raw = lay_out(values, layout, indent)[0].rstrip()
    whole = raw[: max(2, len(raw) - lost)]
    rows, findings = read(whole, 250, sizes)
    assert [row.value for row in rows] == values[: len(rows)]
    [error] = [f for f in findings.all() if f.severity == "error"]
    assert error.line is not None and error.line <= whole.count(b"\n") + 1


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [b'{"prompt":', b'"a"', b",", b'"completion":', b"}", b"{", b"[", b"]", b"\n", b" "]
        )
        | st.binary(max_size=3),
        max_size=40,
    ).map(b"".join),
    st.integers(1, 40),
    st.lists(st.integers(1, 30), min_size=1, max_size=4),
)
def test_any_bytes_give_records_or_findings_wherever_they_are_cut(
    raw: bytes, first: int, sizes: list[int]
) -> None:
    rows, findings = read(raw, first, sizes)
    assert all(1 <= row.line <= raw.count(b"\n") + 1 for row in rows)
    assert rows or findings.all() or not raw.strip(b" \t\r\n[]\xef\xbb\xbf")
