"""Search the records of a JSONL file of any size: a slice of time at once, continued at a cursor.

Only blocks of the file are in memory. Most of a file is passed over without parsing it: a block
that does not have the text in any spelling has no record that has it.
"""

from __future__ import annotations

import time
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from typing import IO, NamedTuple

import orjson

from cloudft.data.analysis.duplicates import record_text
from cloudft.data.formats.recognizer import parse_record
from cloudft.data.formats.record import BadRecord, Conversation, Record
from cloudft.data.record_index import STEP_BYTES, RawLine
from cloudft.data.sources.line_blocks import LineTooLong, split_lines
from cloudft.data.sources.row_reader import MAX_RECORD_BYTES

LINES_BETWEEN_LOOKS = 50
"""Lines that are parsed between two looks at the clock."""


class Cursor(NamedTuple):
    """Where a search continues: the offset of a line, and its number."""

    offset: int = 0
    line: int = 1


@dataclass(frozen=True)
class RecordQuery:
    """What a record must have; what is empty or None is not compared.

    `text` is part of one of its texts, without regard to case; `label` is its whole answer; `least`
    and `most` bound the characters of all its texts. `columns` and `target` are those of
    `parse_record`.
    """

    text: str = ""
    label: str | None = None
    least: int | None = None
    most: int | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    target: str = ""

    @property
    def is_empty(self) -> bool:
        """Return whether every record matches."""
        return not self.text and self.label is None and self.least is None and self.most is None

    @cached_property
    def folded(self) -> str:
        """Return the text without case."""
        return self.text.casefold()

    def may_be_in(self, raw: bytes) -> bool:
        """Return whether these lines may have a record that matches, by their bytes."""
        needles = self._needles
        if not needles or b"\\u" in raw or b"\\/" in raw:
            return True
        if raw.isascii():  # ten times faster than to decode
            lower = raw.lower()
            return all(needle.encode() in lower for needle in needles)
        text = raw.decode("utf-8", "replace").casefold()
        return all(needle in text for needle in needles)

    @cached_property
    def _needles(self) -> tuple[str, ...]:
        """Return the texts as JSON has them, without case."""
        texts = [text for text in (self.text, self.label) if text]
        return tuple(orjson.dumps(text).decode()[1:-1].casefold() for text in texts)

    def matches(self, raw: bytes) -> bool:
        """Return whether the record of a line matches; one that is no JSON is compared as text."""
        try:
            value = orjson.loads(raw.removeprefix(BOM_UTF8))
        except orjson.JSONDecodeError:
            is_found = self.folded in raw.decode("utf-8", "replace").casefold()
            return bool(self.text) and is_found and self.label is None and self.least is None
        if self.text and not any(self.folded in text.casefold() for text in _texts_in(value)):
            return False
        if self.label is None and self.least is None and self.most is None:
            return True
        try:
            record = parse_record(value, self.columns, self.target)
        except (BadRecord, AttributeError):
            return False
        return self._fits(record)

    def _fits(self, record: Record) -> bool:
        if self.label is not None and _answer_of(record) != self.label:
            return False
        length = len(record_text(record))
        return (self.least or 0) <= length and (self.most is None or length <= self.most)


def _answer_of(record: Record) -> str:
    return record.answer if isinstance(record, Conversation) else ""


def _texts_in(value: object) -> Iterator[str]:
    """Yield the values of a record as texts; keys are none."""
    stack = [value]
    while stack:
        one = stack.pop()
        if isinstance(one, dict):
            stack += one.values()
        elif isinstance(one, list):
            stack += one
        elif isinstance(one, str):
            yield one
        elif one is not None:
            yield str(one)


@dataclass(frozen=True)
class SearchSlice:
    """What a slice of a search found, and where the search continues.

    `is_done` is True at the end of the file, or where a line is too long to be read.
    """

    lines: list[RawLine]
    cursor: Cursor
    is_done: bool


def search_lines(
    handle: IO[bytes],
    cursor: Cursor,
    query: RecordQuery,
    *,
    limit: int,
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> SearchSlice:
    """Search from `cursor` on until `limit` records are found, or for about `seconds`.

    At least one block of the file is searched. Raise OSError.
    """
    end = clock() + seconds
    found: list[RawLine] = []
    offset, number = cursor
    handle.seek(offset)
    try:
        for block in split_lines(iter(lambda: handle.read(STEP_BYTES), b""), MAX_RECORD_BYTES):
            if not query.may_be_in(block.raw):
                offset, number = offset + len(block.raw), number + block.line_count
                if clock() > end:
                    return SearchSlice(found, Cursor(offset, number), False)
                continue
            for count, raw in enumerate(BytesIO(block.raw)):
                if query.may_be_in(raw) and query.matches(raw):
                    whole = raw.removesuffix(b"\n").removesuffix(b"\r")
                    found.append(RawLine(number, offset, whole, len(whole)))
                offset, number = offset + len(raw), number + 1
                is_late = count % LINES_BETWEEN_LOOKS == 0 and clock() > end
                if len(found) == limit or is_late:
                    return SearchSlice(found, Cursor(offset, number), False)
    except LineTooLong:
        return SearchSlice(found, Cursor(offset, number), True)
    return SearchSlice(found, Cursor(offset, number), True)
