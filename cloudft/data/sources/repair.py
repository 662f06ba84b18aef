"""Repair JSON files where there is one way to do it; what can't be repaired is left out, named.

Repaired are bytes (compressed files, UTF-16, Windows-1252, byte order marks, line ends, blank
lines) and JSON (commas that are missing or too many, Python's quotes, raw control characters within
texts, half characters, arrays that are cut off, tables by columns). Records are written as they
are: no key is renamed or left out. Their turns are edited on demand (turn_edits.py).
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import IO

from cloudft.data.formats.recognizer import flatten_record, parse_record
from cloudft.data.formats.record import BadRecord, JsonObject
from cloudft.data.formats.registry import encode_record
from cloudft.data.sources.byte_repair import open_repaired_bytes
from cloudft.data.sources.file_start import find_foreign_content
from cloudft.data.sources.json_errors import diagnose_json_error, find_repeated_key
from cloudft.data.sources.json_layout import (
    Layout,
    detect_layout,
    find_next_list,
    is_message_list,
    is_table,
)
from cloudft.data.sources.json_scan import skip_space
from cloudft.data.sources.json_tables import rows_of_table
from cloudft.data.sources.json_values import BrokenValues, ValueBlock, ValueReader
from cloudft.data.sources.line_blocks import SMALL_FILE, LineTooLong, read_up_to, split_lines
from cloudft.data.sources.loose_json import RepeatedKey, parse_loosely
from cloudft.data.sources.row_reader import MAX_RECORD_BYTES
from cloudft.data.sources.text_encoding import decode_windows_1252
from cloudft.data.sources.turn_edits import TurnEdit, edit_turns

PIECE_BYTES = 256 * 1024
MAX_TABLE_BYTES = 512 * 1024 * 1024
"""Bytes of a table by columns, which is held whole."""
SAMPLED_LINES = 20
_BRACKETS = b"[]{}, \t\r\n"


@dataclass(frozen=True)
class RecordRules:
    """How a job reads its records: what a repaired one is checked by.

    `target` is the format that they are staged for, "" if any will do.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    target: str = ""
    group_by: str | None = None
    turns: tuple[TurnEdit, ...] = ()


@dataclass(frozen=True)
class RepairedValue:
    """A line or an element after repair.

    `records` are JSON lines without line end; `error_code` is that of a record that is left out.
    `list_key` names the list in which the file has it, where there is one.
    """

    line: int
    records: tuple[bytes, ...]
    changed: bool
    error_code: str | None = None
    list_key: str = ""
    edits: tuple[TurnEdit, ...] = ()


class JsonRepair:
    """The repair of one file. `changes` names what was repaired in it besides single records."""

    def __init__(self, rules: RecordRules | None = None) -> None:
        self.changes: dict[str, None] = {}
        self._rules = rules or RecordRules()

    def read(self, handle: IO[bytes]) -> Iterator[RepairedValue]:
        """Yield the file's values, repaired. Blank lines are skipped. Raises OSError.

        A compressed file that is cut off ends with line 0, left out as Truncated. Raises BadArchive
        for one that unpacks to more than a text can be.
        """
        try:
            yield from self._read(handle)
        except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error):
            yield RepairedValue(0, (), True, "Truncated")
        except OSError as error:
            if error.errno is not None:  # bz2 raises one without a number for a damaged stream
                raise
            yield RepairedValue(0, (), True, "Truncated")

    def _note(self, change: str) -> None:
        self.changes[change] = None

    def _read(self, handle: IO[bytes]) -> Iterator[RepairedValue]:
        with open_repaired_bytes(handle, self._note) as stream:
            yield from self._read_stream(stream)

    def _read_stream(self, stream: io.BufferedReader) -> Iterator[RepairedValue]:
        start = read_up_to(stream, SMALL_FILE)
        is_whole = len(start) < SMALL_FILE
        if start.startswith(codecs.BOM_UTF8):
            self._note("byte order mark left out")
            start = start.removeprefix(codecs.BOM_UTF8)
        foreign = find_foreign_content(start, "jsonl", "")
        if foreign is not None:
            yield RepairedValue(1, (), True, foreign[0])
            return
        layout = detect_layout(start, is_whole=is_whole)
        pieces = iter(lambda: stream.read(PIECE_BYTES), b"")
        if layout.kind == "table":
            yield from self._read_table(start, pieces)
        elif layout.kind == "lines":
            yield from self._read_lines(chain([start], pieces))
        else:
            yield from self._read_values(layout, start, pieces)

    def _read_lines(self, pieces: Iterator[bytes]) -> Iterator[RepairedValue]:
        try:
            for block in split_lines(pieces, MAX_RECORD_BYTES):
                for number, raw in enumerate(io.BytesIO(block.raw), block.first_line):
                    if raw.endswith(b"\r\n"):
                        self._note("line ends written as LF")
                    if raw.strip():
                        may_be_table = number == 1 and len(raw) >= SMALL_FILE
                        yield self._repair_value(raw.strip(), number, may_be_table=may_be_table)
                    else:
                        self._note("blank lines left out")
        except LineTooLong as error:
            yield RepairedValue(error.line, (), True, "RecordTooLong")

    def _read_values(
        self, layout: Layout, start: bytes, pieces: Iterator[bytes]
    ) -> Iterator[RepairedValue]:
        """Yield the elements of arrays, or values one after another."""
        before, rest, key = start[: layout.start], start[layout.start :], layout.key
        line = before.count(b"\n") + 1
        in_array = layout.kind == "array"
        while True:
            reader = ValueReader(MAX_RECORD_BYTES, line, 0, in_array=in_array)
            try:
                for block in reader.read(chain([rest], pieces)):
                    yield from self._repair_block(block, key, layout.row_key)
            except BrokenValues as broken:
                resumed = self._resume(broken)
                if resumed is None:
                    yield from self._read_rest(broken, key)
                    return
                rest, line = resumed, broken.line
                continue
            following = _find_following(reader.tail, pieces, key) if in_array else None
            if following is None:
                return
            key, rest = following
            line = reader.line
            if key:
                self._note("each list of records written into a file of its own")

    def _repair_block(self, block: ValueBlock, key: str, row_key: str) -> Iterator[RepairedValue]:
        line, at = block.first_line, 0
        for start, raw in block.split():
            line += block.raw.count(b"\n", at, start)
            at = start
            yield self._repair_value(raw, line, key, row_key)

    def _resume(self, broken: BrokenValues) -> bytes | None:
        """Return where to read on after a comma that is missing or too much; None if nowhere."""
        if broken.reason == "comma":
            self._note("missing commas added")
            return broken.rest
        if broken.reason == "trailing comma" or broken.rest.startswith(b","):
            self._note("superfluous commas left out")
            return broken.rest[1:]
        return None

    def _read_rest(self, broken: BrokenValues, key: str) -> Iterator[RepairedValue]:
        """Yield what can be separated, line by line, behind the point where values can't be."""
        if not broken.rest:
            self._note("the array is closed")
            return
        lines = broken.rest.split(b"\n")
        if not any(_is_record_line(raw) for raw in lines[1:SAMPLED_LINES]):
            code = {"too long": "RecordTooLong", "cut off": "Truncated"}.get(broken.reason)
            yield RepairedValue(broken.line, (), True, code or "BadJson", key)
            return
        self._note("the array is taken line by line")
        for number, raw in enumerate(lines, broken.line):
            if raw.strip(_BRACKETS):
                yield self._repair_value(raw.strip(), number, key)

    def _read_table(self, start: bytes, pieces: Iterator[bytes]) -> Iterator[RepairedValue]:
        parts, size = [start], len(start)
        for piece in pieces:
            parts.append(piece)
            size += len(piece)
            if size > MAX_TABLE_BYTES:
                yield RepairedValue(1, (), True, "RecordTooLong")
                return
        yield self._repair_value(b"".join(parts), 1, may_be_table=True)

    def _rows(self, table: JsonObject) -> list[object]:
        """Return the rows of a table by columns."""
        self._note("written a record a line (it was a table by columns)")
        try:
            return list(rows_of_table(table))
        except ValueError:
            return [table]

    def _repair_value(
        self,
        raw: bytes,
        line: int,
        key: str = "",
        row_key: str = "",
        *,
        may_be_table: bool = False,
    ) -> RepairedValue:
        """Return what a line or an element holds."""
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError:
            text = decode_windows_1252(raw)
            if text is None:
                return RepairedValue(line, (), True, "NotUtf8", key)
            self._note("written as UTF-8 (it was Windows-1252)")
            raw = text.encode("utf-8")
        try:
            values, error_code = _parse(raw)
        except RepeatedKey:
            return RepairedValue(line, (), True, "RepeatedKey", key)
        if values is None:
            return RepairedValue(line, (), True, error_code, key)
        if error_code == "LoneSurrogate":
            self._note("halves of characters written as U+FFFD")
        if may_be_table and len(values) == 1 and is_table(values[0]):
            return self._check(self._rows(values[0]), None, line)
        if row_key:
            values = [v.get(row_key, v) if isinstance(v, dict) else v for v in values]
        records = [record for value in values for record in _records_of(value)]
        is_as_read = error_code is None and not row_key and len(records) == 1
        return self._check(records, raw if is_as_read else None, line, key)

    def _check(
        self, values: list[object], raw: bytes | None, line: int, key: str = ""
    ) -> RepairedValue:
        """Return the records that the job can use. `raw` is the one value as the file has it."""
        kept: list[bytes] = []
        edits: list[TurnEdit] = []
        error_code = None
        for value in values:
            record = {"messages": value} if is_message_list(value) else value
            if not isinstance(record, dict):
                error_code = error_code or "NotAnObject"
                continue
            applied = edit_turns(record, self._rules.turns, self._rules.columns)
            edits += applied
            problem = self._find_problem(record)
            if problem is not None:
                error_code = error_code or problem
            elif raw is not None and not applied:
                kept.append(_as_line(raw))
            else:
                kept.append(_dump(value))
        changed = raw is None or bool(edits) or error_code is not None
        return RepairedValue(line, tuple(kept), changed, error_code, key, tuple(edits))

    def _find_problem(self, record: JsonObject) -> str | None:
        """Return the code of the error that the job has with a record, None if it has none."""
        rules = self._rules
        group = rules.group_by
        try:
            row = dict(flatten_record(record, rules.columns)) if rules.columns else record
            if group is not None:
                if group not in row:
                    return "WrongKeys"
                if group not in rules.columns.values():
                    row = {name: item for name, item in row.items() if name != group}
            parsed = parse_record(row, rules.columns, rules.target)
            if rules.target:
                encode_record(parsed, rules.target)
        except BadRecord as bad:
            return bad.code if bad.severity == "error" else None
        return None


def _find_following(tail: bytes, pieces: Iterator[bytes], key: str) -> tuple[str, bytes] | None:
    """Return the key and the start of what follows an array: another one, or None."""
    while not tail.strip() or (key and len(tail) < SMALL_FILE):
        piece = next(pieces, b"")
        if not piece:
            break
        tail += piece
    if key:
        following = find_next_list(tail)
        return None if following is None else (following[0], tail[following[1] :])
    at = skip_space(tail, 0)
    return ("", tail[at + 1 :]) if tail[at : at + 1] == b"[" else None


def _is_record_line(raw: bytes) -> bool:
    """Return whether a line holds a whole record, be it followed by a comma."""
    try:
        values = parse_loosely(raw.decode("utf-8", "replace"))
    except RepeatedKey:
        return True
    return bool(values) and isinstance((values or [None])[0], dict)


def _parse(raw: bytes) -> tuple[list[object] | None, str | None]:
    """Return the values of a line, and the code of what was wrong with it.

    None, if it can't be read in one way only. Raises RepeatedKey.
    """
    import orjson

    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        code = diagnose_json_error(raw, error, 1, 0)[0]
        return parse_loosely(raw.decode("utf-8")), code
    repeated = find_repeated_key(raw, value)
    if repeated is not None:
        raise RepeatedKey(repeated)
    return [value], None


def _records_of(value: object) -> list[object]:
    """Return the records of a value: itself, the rows of a table, or what a list of records has."""
    if is_message_list(value) or not isinstance(value, list) or not value:
        return [value]
    is_list_of_records = all(isinstance(item, dict) or is_message_list(item) for item in value)
    return value if is_list_of_records else [value]


def _as_line(raw: bytes) -> bytes:
    """Return a value on one line, its texts and numbers written as they were."""
    if b"\n" not in raw and b"\r" not in raw:
        return raw
    import msgspec

    return msgspec.json.format(raw, indent=-1)


def _dump(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": ")).encode("utf-8")
