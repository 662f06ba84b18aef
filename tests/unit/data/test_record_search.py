"""Searching records in slices finds what comparing every record finds, and each of them once."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudft.data import record_search
from cloudft.data.analysis.duplicates import record_text
from cloudft.data.formats.recognizer import parse_record
from cloudft.data.record_search import Cursor, RecordQuery, SearchSlice, search_lines

TEXT = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(
    ["Straße", "STRASSE", "a/b", 'say "yes"', "line\nend", "tab\t", "日本", "\u212aelvin", "kelvin"]
)
NEEDLE = TEXT.filter(str.strip)


def lines_of(records: list[dict[str, str]], write: Callable[[Any], bytes]) -> bytes:
    return b"".join(write(record) + b"\n" for record in records)


def search_all(content: bytes, query: RecordQuery, limit: int, seconds: float) -> list[int]:
    """Return the lines that slices of a search find, one slice after another."""
    found: list[int] = []
    cursor, clock = Cursor(), itertools.count()
    handle = io.BytesIO(content)
    for _ in range(10_000):
        got = search_lines(
            handle, cursor, query, limit=limit, seconds=seconds, clock=lambda: float(next(clock))
        )
        found += [line.number for line in got.lines]
        if got.is_done:
            return found
        assert got.cursor.offset > cursor.offset
        cursor = got.cursor
    raise AssertionError("the search does not end")


@settings(max_examples=200, deadline=None)
@given(
    texts=st.lists(st.tuples(TEXT, TEXT), max_size=12),
    needle=NEEDLE,
    write=st.sampled_from(
        [orjson.dumps, lambda value: json.dumps(value).replace("/", "\\/").encode()]
    ),
    limit=st.integers(1, 5),
    seconds=st.sampled_from([0.0, 2.0, 1e9]),
)
def test_slices_find_every_record_once(
    texts: list[tuple[str, str]],
    needle: str,
    write: Callable[[Any], bytes],
    limit: int,
    seconds: float,
) -> None:
    records = [{"prompt": prompt, "completion": answer} for prompt, answer in texts]
    folded = needle.casefold()
    expected = [
        number
        for number, record in enumerate(records, 1)
        if any(folded in text.casefold() for text in record.values())
    ]
    content = lines_of(records, write)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_search, "STEP_BYTES", 32)
        patch.setattr(record_search, "LINES_BETWEEN_LOOKS", 1)
        assert search_all(content, RecordQuery(needle), limit, seconds) == expected


def find(records: list[dict[str, str]], **query: Any) -> list[int]:
    return search_all(lines_of(records, orjson.dumps), RecordQuery(**query), 25, 1e9)


def test_filters_by_label_and_length() -> None:
    records = [
        {"prompt": f"Where is parcel {'x' * n}?", "completion": "billing" if n % 2 else "billing 2"}
        for n in range(6)
    ]
    assert find(records, label="billing") == [2, 4, 6]
    assert find(records, label="billing", text="XXX?") == [4, 6]
    parsed = [parse_record(record, {}) for record in records]
    some = [n for n, one in enumerate(parsed, 1) if 27 <= len(record_text(one)) <= 29]
    assert 0 < len(some) < 6
    assert find(records, least=27, most=29) == some


def test_keys_are_not_searched_and_broken_lines_are() -> None:
    content = b'{"prompt": "a", "completion": "b"}\nno JSON: a PROMPT\n\n'
    assert search_all(content, RecordQuery("prompt"), 25, 1e9) == [2]


def test_a_byte_order_mark_hides_no_record() -> None:
    content = "\ufeff".encode() + lines_of([{"prompt": "a", "completion": "b"}], orjson.dumps)
    assert search_all(content, RecordQuery(label="b"), 25, 1e9) == [1]


def test_a_slice_ends_in_time_and_after_a_line_that_is_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(record_search, "MAX_RECORD_BYTES", 100)
    monkeypatch.setattr(record_search, "STEP_BYTES", 64)
    content = b'{"text": "a"}\n' * 10 + b"x" * 1000 + b'\n{"text": "a"}\n'
    got = search_lines(io.BytesIO(content), Cursor(), RecordQuery("a"), limit=99, seconds=1e9)
    assert isinstance(got, SearchSlice)
    assert [line.number for line in got.lines] == list(range(1, 11))
    assert got.is_done
