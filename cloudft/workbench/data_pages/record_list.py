"""Put a page of records together: by their numbers, or what a search finds in a slice of time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cloudft.data.record_search import Cursor, RecordQuery, search_lines
from cloudft.errors import UsageError
from cloudft.evaluate.report.shared_text import SharedText, find_shared_text
from cloudft.types import Finding
from cloudft.workbench.data_pages.choices import DataFile, DataSet
from cloudft.workbench.data_pages.indexes import OpenIndex
from cloudft.workbench.data_pages.records import (
    MAX_LISTED_BYTES,
    MAX_SEQUENTIAL,
    ShownRecord,
    read_sequentially,
    show_line,
)

PAGE_RECORDS = 25
SLICE_S = 0.5
"""Seconds that one request searches."""
SUMMARY_CHARACTERS = 220
MAX_COMPARED = 4000
"""Characters of a prompt in which a beginning is searched that others have too."""


@dataclass(frozen=True)
class RecordList:
    """A page of records. `total` is None while it is not known; `first` is where the page begins.

    `after` is where the search for `text` continues, "" at the end of the file; `share` is how much
    of the file was searched or indexed, from 0 to 1.
    """

    records: list[ShownRecord]
    first: int = 1
    total: int | None = None
    about: int | None = None
    share: float = 1.0
    after: str = ""
    is_search: bool = False
    is_sequential: bool = False
    notice: str = ""
    text: str = ""
    findings: tuple[Finding, ...] = ()

    @property
    def last(self) -> int:
        """Return the number of the last record of the page."""
        return self.first + max(0, len(self.records) - 1)

    @property
    def previous(self) -> int | None:
        """Return where the page before begins; None on the first one."""
        return max(1, self.first - PAGE_RECORDS) if self.first > 1 else None

    @property
    def next(self) -> int | None:
        """Return where the next page begins; None on the last one."""
        if len(self.records) < PAGE_RECORDS or self.last == self.total:
            return None
        return self.last + 1

    @property
    def last_page(self) -> int | None:
        """Return where the last page begins, once that is known; None if this is the last."""
        if self.total is None or self.last >= self.total:
            return None
        return (self.total - 1) // PAGE_RECORDS * PAGE_RECORDS + 1

    @cached_property
    def shared(self) -> SharedText:
        """Return what most prompts of the page begin and end with: it is shown once."""
        views = [record.view for record in self.records if record.view is not None]
        return find_shared_text([view.question_and_answer()[0][:MAX_COMPARED] for view in views])

    def summary(self, record: ShownRecord) -> tuple[str, str]:
        """Return what the list shows of a record: question and answer, or its text."""
        if record.view is None:
            return excerpt(record.text, self.text), ""
        question, answer = record.view.question_and_answer()
        rest = self.shared.split(question[:MAX_COMPARED])
        if rest.has_beginning or rest.has_end:
            question = f"{'… ' * rest.has_beginning}{rest.rest}{' …' * rest.has_end}"
        return excerpt(question, self.text), excerpt(answer, self.text)


def excerpt(text: str, around: str = "") -> str:
    """Return the beginning of a text in one line, or the part of it that has `around`."""
    at = text.casefold().find(around.casefold()) if around else 0
    start = max(0, at - SUMMARY_CHARACTERS // 3) if at > SUMMARY_CHARACTERS - len(around) else 0
    line = " ".join(text[start : start + 2 * SUMMARY_CHARACTERS].split())
    is_cut = len(line) > SUMMARY_CHARACTERS or start + 2 * SUMMARY_CHARACTERS < len(text)
    return f"{'…' * bool(start)}{line[:SUMMARY_CHARACTERS]}{'…' * is_cut}"


def read_number(parameters: Mapping[str, Any], name: str, default: int = 1) -> int:
    """Return a number of an address, at least 1. Raise UsageError."""
    text = str(parameters.get(name, "")).replace(",", "").strip()
    if not text:
        return default
    if not text.isdecimal() or int(text) < 1 or len(text) > 15:
        raise UsageError(f"{text[:40]!r} is no number of a record", fix="count from 1.")
    return int(text)


def query_of(parameters: Mapping[str, Any], data: DataSet) -> RecordQuery:
    """Return what an address searches for. Raise UsageError."""
    return RecordQuery(
        str(parameters.get("q", "")),
        str(parameters["label"]) if parameters.get("label") else None,
        _read_bound(parameters, "least"),
        _read_bound(parameters, "most"),
        columns=data.columns,
        target=data.target,
    )


def _read_bound(parameters: Mapping[str, Any], name: str) -> int | None:
    return read_number(parameters, name) if parameters.get(name) else None


def cursor_of(text: str) -> Cursor:
    """Return where a search continues, as an address has it. Raise UsageError."""
    offset, _, line = text.partition(":")
    if not text:
        return Cursor()
    if not (offset.isdecimal() and line.isdecimal()):
        raise UsageError("the search can't be continued there", fix="search again.")
    return Cursor(int(offset), int(line))


def list_records(data: DataSet, file: DataFile, entry: OpenIndex, first: int) -> RecordList:
    """Return a page of a file with random access. Raise FileChanged, OSError, UsageError."""
    lines = entry.index.read_lines(first, PAGE_RECORDS, MAX_LISTED_BYTES)
    total = entry.index.line_count if entry.is_complete else None
    if not lines and first > 1:
        fix = f"{file.name} has {total:,} lines." if total else "count from 1."
        raise UsageError(f"there is no line {first:,}", fix=fix)
    share = entry.share
    return RecordList(
        [show_line(line, data, file) for line in lines],
        first,
        total,
        None if total is not None or not share else round(entry.index.line_count / share),
        share,
        notice=entry.notice,
    )


def list_matches(
    data: DataSet, file: DataFile, entry: OpenIndex, query: RecordQuery, cursor: Cursor
) -> RecordList:
    """Return what a slice of a search finds from `cursor` on. Raise FileChanged, OSError."""
    with entry.index.open() as handle:
        found = search_lines(handle, cursor, query, limit=PAGE_RECORDS, seconds=SLICE_S)
        size = handle.seek(0, 2)
    return RecordList(
        [show_line(line, data, file) for line in found.lines],
        cursor.line,
        share=min(1.0, found.cursor.offset / size) if size else 1.0,
        after="" if found.is_done else ":".join(map(str, found.cursor)),
        is_search=True,
        notice=entry.notice,
        text=query.text,
    )


def list_lines(data: DataSet, file: DataFile, entry: OpenIndex, lines: Sequence[int]) -> RecordList:
    """Return the records of some lines, up to a page of them. Raise FileChanged, OSError."""
    found = [
        line
        for number in lines[:PAGE_RECORDS]
        for line in entry.index.read_lines(number, 1, MAX_LISTED_BYTES)
    ]
    records = [show_line(line, data, file) for line in found]
    return RecordList(records, lines[0] if lines else 1, is_search=True, notice=entry.notice)


def list_sequential(data: DataSet, file: DataFile, first: int) -> RecordList:
    """Return a page of a file that is read from its beginning. Raise UsageError."""
    if first > MAX_SEQUENTIAL:
        raise UsageError(
            f"this file is read from its beginning, and shown up to record {MAX_SEQUENTIAL:,}",
            fix="convert it to JSONL, any line of which can be shown:"
            f" cloudft data convert {file.name} --to converse --out records.jsonl",
        )
    records, findings = read_sequentially(data, file, first, PAGE_RECORDS)
    total = first + len(records) - 1 if len(records) < PAGE_RECORDS else None
    return RecordList(records, first, total, is_sequential=True, findings=findings)
