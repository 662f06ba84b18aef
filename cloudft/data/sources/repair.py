"""Repair broken JSONL where there is one way to do it; what can't be repaired is left out, named.

Repaired are bytes (compressed files, UTF-16, Windows-1252, byte order marks, line ends), JSON (a
list of records, indented or several objects, trailing commas, Python's quotes, raw line ends within
texts, half characters) and records (misspelled, unknown and superfluous keys, numbers for texts,
other names of roles). Contents are never guessed.
"""

from __future__ import annotations

import ast
import bz2
import codecs
import gzip
import io
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, cast

from cloudft.data.formats.recognizer import parse_record
from cloudft.data.formats.record import BadRecord, JsonObject
from cloudft.data.sources.json_errors import find_repeated_key
from cloudft.data.sources.line_blocks import read_up_to
from cloudft.data.sources.row_reader import MAX_RECORD_BYTES
from cloudft.storage.archives import DEFAULT_LIMITS, BoundedReader, CountingReader

DECOMPRESSORS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
TRAILING_COMMA = re.compile(r",(\s*[}\]])")


@dataclass(frozen=True)
class RepairedLine:
    """A line after repair: its records, and the code of the error for a record that is omitted."""

    line: int
    records: tuple[JsonObject, ...]
    changed: bool
    error_code: str | None = None


def repair_lines(handle: IO[bytes], columns: Mapping[str, str]) -> Iterator[RepairedLine]:
    """Yield each line of a JSONL file, repaired. Blank lines are skipped. Raises OSError.

    A compressed file that is cut off ends with line 0, left out as Truncated. Raises BadArchive for
    one that unpacks to more than a text can be.
    """
    try:
        yield from _repair_stream(handle, columns)
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error):
        yield RepairedLine(0, (), True, "Truncated")
    except OSError as error:
        if error.errno is not None:  # bz2 raises one without a number for a damaged stream
            raise
        yield RepairedLine(0, (), True, "Truncated")


def _repair_stream(handle: IO[bytes], columns: Mapping[str, str]) -> Iterator[RepairedLine]:
    buffered = io.BufferedReader(cast(io.RawIOBase, handle), 1024 * 1024)
    start = buffered.peek(8)[:8]
    unpack = next((u for magic, u in DECOMPRESSORS.items() if start.startswith(magic)), None)
    stream: Any = _unpacked(buffered, unpack) if unpack else buffered
    start = stream.peek(8)[:8]
    is_utf16 = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if is_utf16:
        text = read_up_to(stream, MAX_RECORD_BYTES).decode("utf-16", "replace")
        stream = io.BytesIO(text.encode("utf-8", "replace"))
    changed = bool(unpack or is_utf16)
    first = stream.readline(MAX_RECORD_BYTES).removeprefix(codecs.BOM_UTF8)
    if first.strip()[:1] == b"[" or first.strip() == b"{":
        whole = first + read_up_to(stream, MAX_RECORD_BYTES)
        yield from _repair_whole(whole, changed, columns)
        return
    for number, raw in enumerate(_read_lines(first, stream), 1):
        if raw.strip():
            yield _repair_line(number, raw, changed, columns)


def _unpacked(stream: IO[bytes], unpack: Callable[[Any], Any]) -> Any:
    packed = CountingReader(stream)
    return io.BufferedReader(BoundedReader(unpack(packed), packed, DEFAULT_LIMITS))


def _read_lines(first: bytes, stream: IO[bytes]) -> Iterator[bytes]:
    raw = first
    while raw:
        yield raw
        raw = stream.readline(MAX_RECORD_BYTES)


def _repair_whole(
    whole: bytes, changed: bool, columns: Mapping[str, str]
) -> Iterator[RepairedLine]:
    """Yield the records of a file that is one JSON list, or objects over several lines.

    If it is neither after all, its lines are repaired one by one.
    """
    values = _parse_values(_decode(whole.strip())[0])
    if values is None:
        for number, raw in enumerate(whole.splitlines(), 1):
            if raw.strip():
                yield _repair_line(number, raw, changed, columns)
        return
    records = [item for value in values for item in (value if isinstance(value, list) else [value])]
    for number, record in enumerate(records, 1):
        yield _check_records(number, [record], columns, changed=True)


def _repair_line(
    number: int, raw: bytes, changed: bool, columns: Mapping[str, str]
) -> RepairedLine:
    text, was_changed = _decode(raw.strip())
    values = _parse_values(text)
    if values is None:
        return RepairedLine(number, (), True, "BadJson")
    if len(values) == 1 and isinstance(values[0], dict):
        repeated = find_repeated_key(text.encode("utf-8", "replace"), values[0])
        if repeated is not None:
            return RepairedLine(number, (), True, "RepeatedKey")
    try:
        was_changed = was_changed or [json.loads(text)] != values
    except (ValueError, RecursionError):
        was_changed = True
    return _check_records(number, values, columns, changed=changed or was_changed)


def _decode(raw: bytes) -> tuple[str, bool]:
    """Return the bytes as text, and whether they were no UTF-8."""
    try:
        return raw.decode("utf-8"), False
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace"), True


def _parse_values(text: str) -> list[object] | None:
    """Return the JSON values in a text, however loosely they are written; None if it has none."""
    try:
        for candidate in (text.rstrip(","), TRAILING_COMMA.sub(r"\1", text.rstrip(","))):
            values = _parse_several(candidate)
            if values:
                return [_replace_surrogates(value) for value in values]
        value = ast.literal_eval(text)
        return [_replace_surrogates(value)] if isinstance(value, dict) else None
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return None


def _parse_several(text: str) -> list[object] | None:
    """Return one JSON value or more, one after another. Raw control characters are accepted."""
    decoder, at = json.JSONDecoder(strict=False), 0
    values: list[object] = []
    while at < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except ValueError:
            return None
        values.append(value)
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
    return values


def _replace_surrogates(value: object) -> object:
    """Return the value with U+FFFD for halves of surrogate pairs."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_replace_surrogates(k): _replace_surrogates(v) for k, v in value.items()}
    return [_replace_surrogates(v) for v in value] if isinstance(value, list) else value


def _check_records(
    number: int, values: list[object], columns: Mapping[str, str], *, changed: bool
) -> RepairedLine:
    """Return the records that can be used, and the code of the first that can't."""
    records, error_code = [], None
    for value in values:
        if not isinstance(value, dict):
            error_code = error_code or "NotAnObject"
            continue
        try:
            parse_record(value, columns)
        except BadRecord as bad:
            error_code = error_code or bad.code
        else:
            records.append(value)
    return RepairedLine(number, tuple(records), changed, error_code)
