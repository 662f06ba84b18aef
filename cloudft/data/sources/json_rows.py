"""Read JSON as raw records: one a line, in an array, one after another, or in a list under a key.

A list of messages alone counts as {"messages": [...]}, a list of records as its records.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

from cloudft.data.formats.key_roles import is_meaningful
from cloudft.data.formats.record import JsonObject
from cloudft.data.sources import row_reader
from cloudft.data.sources.file_start import FIX_COMMAND, find_misnamed_text
from cloudft.data.sources.json_errors import (
    diagnose_broken_values,
    diagnose_json_error,
    find_repeated_key,
    is_only_value_error,
)
from cloudft.data.sources.json_layout import (
    Layout,
    detect_layout,
    find_next_list,
    is_message_list,
    is_table,
    iter_members,
)
from cloudft.data.sources.json_scan import scan_values, skip_space
from cloudft.data.sources.json_tables import rows_of_table
from cloudft.data.sources.json_values import BrokenValues, ValueBlock, ValueReader
from cloudft.data.sources.line_blocks import SMALL_FILE, Block
from cloudft.data.sources.row_reader import BlockReader, JsonBlock, ReadContext, Row

if TYPE_CHECKING:
    from orjson import JSONDecodeError

MAX_EXPLAINED = 200
"""Errors of a file up to which each gets a remedy of its own."""
MAX_TAIL_BYTES = 1024 * 1024
"""Bytes that may follow the list of records in the object that holds it."""


def read_json(
    context: ReadContext, pieces: Iterator[bytes], read_block: BlockReader | None = None
) -> Iterator[Row]:
    """Yield the records of a JSON file that is read in pieces."""

    def read(block: JsonBlock) -> Iterator[Row]:
        return read_block(block) if read_block else read_json_rows(context, block)

    start, following = next(pieces, b""), next(pieces, None)
    is_whole = following is None
    pieces = pieces if following is None else chain([following], pieces)
    layout = detect_layout(start.removeprefix(codecs.BOM_UTF8), is_whole=is_whole)
    if layout.kind == "lines":
        if context.is_foreign(start):
            return
        problem = find_misnamed_text(start, context.file)
        if problem is not None:
            context.add_error(*problem, 1)
            return
        for block in context.iter_line_blocks(chain([start], pieces)):
            yield from read(block)
        return
    start = context.strip_bom(start)
    if layout.kind == "table":
        yield from _read_table(context, chain([start], pieces))
    elif layout.key:
        yield from _WrappedRows(context, layout, read).read(start, pieces)
    else:
        yield from _read_values(context, layout, start, pieces, read)


def _read_values(
    context: ReadContext,
    layout: Layout,
    start: bytes,
    pieces: Iterator[bytes],
    read: BlockReader,
) -> Iterator[Row]:
    """Yield the records of an array, of several arrays, or of objects one after another."""
    reader = _open_values(layout, start)
    rest = start[layout.start :]
    while True:
        for block in _iter_blocks(context, reader, chain([rest], pieces)):
            yield from read(block)
        if context.is_unreadable or layout.kind == "sequence":
            return
        rest = reader.tail
        while skip_space(rest, 0) == len(rest) and (piece := next(pieces, b"")):
            rest = piece
        at = skip_space(rest, 0)
        if at == len(rest):
            return
        if rest[at : at + 1] != b"[":
            message = "there is something behind the end of the array"
            context.add_error("BadJson", message, "take it out", reader.line)
            return
        reader = ValueReader(row_reader.MAX_RECORD_BYTES, reader.line, 0, in_array=True)
        rest = rest[at + 1 :]


def _open_values(layout: Layout, start: bytes) -> ValueReader:
    before = start[: layout.start]
    line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n") - 1
    in_array = layout.kind == "array"
    return ValueReader(row_reader.MAX_RECORD_BYTES, line, column, in_array=in_array)


def _iter_blocks(
    context: ReadContext, reader: ValueReader, pieces: Iterator[bytes]
) -> Iterator[ValueBlock]:
    """Yield the blocks of a file; add one error where its values can't be separated."""
    try:
        for block in reader.read(pieces):
            yield block
            if context.is_unreadable:
                return
    except BrokenValues as broken:
        context.is_unreadable = True
        context.add_error(*diagnose_broken_values(broken))


class _WrappedRows:
    """Reads the records of a list in an object."""

    def __init__(self, context: ReadContext, layout: Layout, read: BlockReader) -> None:
        self._context, self._layout, self._read = context, layout, read

    def read(self, start: bytes, pieces: Iterator[bytes]) -> Iterator[Row]:
        """Yield the records, then check that nothing else in the object has any."""
        context, layout = self._context, self._layout
        reader = _open_values(layout, start)
        for block in _iter_blocks(context, reader, chain([start[layout.start :]], pieces)):
            if layout.row_key:
                yield from map(self._unwrap, read_json_rows(context, block))
            else:
                yield from self._read(block)
        if context.is_unreadable:
            return
        tail = reader.tail
        for piece in pieces:
            tail += piece
            if len(tail) > MAX_TAIL_BYTES:
                break
        after = {} if tail.strip() == b"}" else self._parse_tail(tail, reader.line)
        if after is not None:
            self._note_rest({**layout.outer, **after})

    def _unwrap(self, row: Row) -> Row:
        """Return the record within an element, where that is not the record itself."""
        inner = row.value.get(self._layout.row_key)
        if not isinstance(inner, dict):
            return row
        if row.value.get("truncated_cells"):
            message = "cells of this record are cut off (truncated_cells)"
            fix = "download the data set's files: the datasets-server shortens long texts"
            self._context.add_error("TruncatedCells", message, fix, row.line)
        return Row(row.line, inner)

    def _parse_tail(self, tail: bytes, line: int) -> JsonObject | None:
        """Return the members behind the list; None, with an error, if there are more records."""
        second = find_next_list(tail)
        if second is not None:
            self._add_second_list(second[0])
            return None
        if not tail.rstrip().endswith(b"}"):
            message = f"the object around the list {self._layout.key[:40]!r} is not complete"
            fix = "is the file cut off? write or download it again"
            self._context.add_error("Truncated", message, fix, line)
            return None
        return {key: value for key, _, value in iter_members(tail, skip_space(tail, 0) + 1)}

    def _add_second_list(self, key: str) -> None:
        first = self._layout.key
        message = f"two lists of records, under {first[:40]!r} and {key[:40]!r}"
        fix = f"{FIX_COMMAND} writes each into a file of its own"
        self._context.add_error("SeveralLists", message, fix)

    def _note_rest(self, outer: JsonObject) -> None:
        """Note which list was read; a key beside it that may carry meaning is an error."""
        key = self._layout.key
        for name, value in outer.items():
            if is_meaningful(name) and value not in (None, "", [], {}):
                message = f"{name[:40]!r} beside the list {key[:40]!r} may be part of each record"
                fix = f"write {name[:40]!r} into each record, or take it out of the file"
                self._context.add_error("UnusedKeys", message, fix)
        message = f"the records are the list under {key[:40]!r}"
        if outer:
            message += f"; left out beside it: {', '.join(name[:40] for name in list(outer)[:10])}"
        self._context.add_note("ListUnderKey", message)


def read_json_rows(context: ReadContext, block: JsonBlock) -> Iterator[Row]:
    """Yield the records of a block, one by one."""
    return (
        _rows_of_lines(context, block)
        if isinstance(block, Block)
        else _rows_of_values(context, block)
    )


def _rows_of_lines(context: ReadContext, block: Block) -> Iterator[Row]:
    for number, raw in context.iter_lines(block):
        stripped = raw.strip()
        if raw.endswith(b"\r\n"):
            context.warn_crlf(number)
        if not stripped:
            fix = "leave it so; take it out before you send the file anywhere yourself"
            context.add_warning("BlankLine", "a blank line; it is left out", fix, number)
            continue
        yield from _rows_of_line(context, number, stripped)
        if context.is_unreadable:
            return


def _rows_of_line(context: ReadContext, number: int, raw: bytes) -> Iterator[Row]:
    import orjson

    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        several = _split_line(raw) if "after document" in error.msg else []
        if several:
            for at, one in several:
                yield from _rows_of_value(context, one, number, at)
        elif context.decode_text(raw, number) is not None:
            _add_json_error(context, raw, error, number, 0)
        return
    if number == 1 and len(raw) >= SMALL_FILE and is_table(value):
        yield from _rows_of_table(context, value)
        return
    yield from _checked_rows(context, number, raw, value)


def _add_json_error(
    context: ReadContext, raw: bytes, error: JSONDecodeError, line: int, column: int
) -> None:
    # Whether a value can be repaired is found by parsing it in other ways: not for a flood.
    is_listed = context.findings.count_errors(context.file) < MAX_EXPLAINED
    diagnosis = diagnose_json_error(raw, error, line, column, explain=is_listed)
    context.add_error(*diagnosis)


def _split_line(raw: bytes) -> list[tuple[int, bytes]]:
    """Return the objects and lists of a line that holds several, each with its position."""
    spans = scan_values(raw, in_array=False, is_last=True)
    if not spans or spans[-1][1] < len(raw) or any(raw[start] not in b"{[" for start, _ in spans):
        return []
    return [(start, raw[start:end]) for start, end in spans]


def _rows_of_values(context: ReadContext, block: ValueBlock) -> Iterator[Row]:
    """Yield the records of a block; stop where one is so broken that the next are in doubt."""
    line, at = block.first_line, 0
    for start, raw in block.split():
        line += block.raw.count(b"\n", at, start)
        at = start
        newline = block.raw.rfind(b"\n", 0, start)
        column = start - newline - 1 if newline >= 0 else block.column + start
        yield from _rows_of_value(context, raw, line, column)
        if context.is_unreadable:
            return


def _rows_of_value(context: ReadContext, raw: bytes, line: int, column: int) -> Iterator[Row]:
    import orjson

    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if context.decode_text(raw, line) is not None:
            _add_json_error(context, raw, error, line, column)
            context.is_unreadable = not is_only_value_error(raw)
        return
    yield from _checked_rows(context, line, raw, value)


def _checked_rows(context: ReadContext, line: int, raw: bytes, value: object) -> Iterator[Row]:
    """Yield the records that a value holds: itself, its messages, or those that it lists."""
    repeated = find_repeated_key(raw, value)
    if repeated is not None:
        message = f"the key {repeated[:40]!r} is repeated"
        fix = "keep one of them: a parser takes the last without a warning"
        context.add_error("RepeatedKey", message, fix, line)
    elif isinstance(value, dict):
        yield Row(line, value)
    elif is_message_list(value):
        yield Row(line, {"messages": value})
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        yield from (Row(line, item) for item in value)
    else:
        message = f"{_type_name(value)} where a record belongs, which is an object"
        context.add_error("NotAnObject", message, 'write {"prompt": ..., "completion": ...}', line)


def _read_table(context: ReadContext, pieces: Iterator[bytes]) -> Iterator[Row]:
    """Yield the rows of a table by columns, which is held whole."""
    import orjson

    parts, size = [], 0
    for piece in pieces:
        parts.append(piece)
        size += len(piece)
        if size > row_reader.MAX_RECORD_BYTES:
            message = f"a table by columns of more than {row_reader.MAX_RECORD_BYTES} bytes"
            fix = (
                f"{FIX_COMMAND} writes it a record a line, which takes no memory; in pandas:"
                ' to_json(FILE, orient="records", lines=True)'
            )
            context.add_error("RecordTooLong", message, fix, 1)
            return
    raw = b"".join(parts)
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if context.decode_text(raw, 1) is not None:
            _add_json_error(context, raw, error, 1, 0)
        return
    yield from _rows_of_table(context, value)


def _rows_of_table(context: ReadContext, table: JsonObject) -> Iterator[Row]:
    """Yield the rows, each with its number instead of a line."""
    try:
        rows = list(rows_of_table(table))
    except ValueError as error:
        fix = 'write it again; in pandas: to_json(FILE, orient="records", lines=True)'
        context.add_error("WrongTable", f"a table by columns with {error}", fix, 1)
        return
    message = "a table column by column, as pandas' to_json() writes it; lines count its rows"
    context.add_note("TableByColumns", message)
    yield from (Row(number, row) for number, row in enumerate(rows, 1))


def _type_name(value: object) -> str:
    names = {list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
