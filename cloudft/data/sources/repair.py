"""Broken JSONL mended where there is one way to do it; what can't be mended is left out, and named.

Mended are bytes (packed files, UTF-16, Windows-1252, byte order marks, line ends), JSON (a list of
records, indented or several objects, trailing commas, Python's quotes, raw line ends within texts,
half characters) and records (misspelt, strange and superfluous keys, numbers for texts, other names
of roles). Contents are never guessed.
"""

from __future__ import annotations

import ast
import bz2
import codecs
import difflib
import gzip
import io
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, cast

from cloudft.data.formats.record import BadRecord
from cloudft.data.formats.registry import input_keys, parse_record
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
ROLE_ALIASES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}


@dataclass(frozen=True)
class RepairedLine:
    """What became of a line: its records, and why one of them is missing (`left_out`), if so."""

    line: int
    records: tuple[dict[str, Any], ...]
    changed: bool
    error_code: str | None = None


def repair_lines(handle: IO[bytes]) -> Iterator[RepairedLine]:
    """Each line of a JSONL file, mended. Blank lines say nothing. Raises OSError.

    The last of a packed file that is cut off is line 0, left out as Truncated. Raises BadArchive
    for one that unpacks to more than a text can be.
    """
    try:
        yield from _mended(handle)
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error):
        yield RepairedLine(0, (), True, "Truncated")
    except OSError as error:
        if error.errno is not None:  # bz2 tells of a damaged stream by one without a number
            raise
        yield RepairedLine(0, (), True, "Truncated")


def _mended(handle: IO[bytes]) -> Iterator[RepairedLine]:
    buffered = io.BufferedReader(cast(io.RawIOBase, handle), 1024 * 1024)
    start = buffered.peek(8)[:8]
    packed = next(
        (unpack for magic, unpack in DECOMPRESSORS.items() if start.startswith(magic)), None
    )
    stream: Any = _unpacked(buffered, packed) if packed else buffered
    start = stream.peek(8)[:8]
    utf16 = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if utf16:
        text = read_up_to(stream, MAX_RECORD_BYTES).decode("utf-16", "replace")
        stream = io.BytesIO(text.encode("utf-8", "replace"))
    changed = bool(packed or utf16)
    first = stream.readline(MAX_RECORD_BYTES).removeprefix(codecs.BOM_UTF8)
    if first.strip()[:1] == b"[" or first.strip() == b"{":
        whole = first + read_up_to(stream, MAX_RECORD_BYTES)
        yield from _lines(whole, changed)
        return
    for number, raw in enumerate(_all(first, stream), 1):
        if raw.strip():
            yield _mend(number, raw, changed)


def _unpacked(stream: IO[bytes], unpack: Callable[[Any], Any]) -> Any:
    packed = CountingReader(stream)
    return io.BufferedReader(BoundedReader(unpack(packed), packed, DEFAULT_LIMITS))


def _all(first: bytes, stream: IO[bytes]) -> Iterator[bytes]:
    raw = first
    while raw:
        yield raw
        raw = stream.readline(MAX_RECORD_BYTES)


def _lines(whole: bytes, changed: bool) -> Iterator[RepairedLine]:
    """A file that is one JSON list, or objects over several lines; else its lines one by one."""
    values = _values(_decoded(whole.strip())[0])
    if values is None:
        for number, raw in enumerate(whole.splitlines(), 1):
            if raw.strip():
                yield _mend(number, raw, changed)
        return
    records = [item for value in values for item in (value if isinstance(value, list) else [value])]
    for number, record in enumerate(records, 1):
        yield _checked(number, [record], changed=True)


def _mend(number: int, raw: bytes, changed: bool) -> RepairedLine:
    """One line."""
    text, other = _decoded(raw.strip())
    values = _values(text)
    if values is None:
        return RepairedLine(number, (), True, "BadJson")
    if len(values) == 1 and isinstance(values[0], dict):
        twice = find_repeated_key(text.encode("utf-8", "replace"), values[0])
        if twice is not None:
            return RepairedLine(number, (), True, "RepeatedKey")
    try:
        other = other or [json.loads(text)] != values
    except (ValueError, RecursionError):
        other = True
    return _checked(number, values, changed=changed or other)


def _decoded(raw: bytes) -> tuple[str, bool]:
    """The bytes as text, and whether they were no UTF-8."""
    try:
        return raw.decode("utf-8"), False
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace"), True


def _values(text: str) -> list[Any] | None:
    """The JSON values in a text, however loosely they are written; None when it has none."""
    try:
        for candidate in (text.rstrip(","), TRAILING_COMMA.sub(r"\1", text.rstrip(","))):
            found = _several(candidate)
            if found:
                return [_whole_characters(value) for value in found]
        value = ast.literal_eval(text)
        return [_whole_characters(value)] if isinstance(value, dict) else None
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return None


def _several(text: str) -> list[Any] | None:
    """One JSON value or more, one after another, with raw control characters if need be."""
    decoder, at, found = json.JSONDecoder(strict=False), 0, []
    while at < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except ValueError:
            return None
        found.append(value)
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
    return found


def _whole_characters(value: Any) -> Any:
    """The value with U+FFFD for halves of surrogate pairs."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_whole_characters(k): _whole_characters(v) for k, v in value.items()}
    return [_whole_characters(v) for v in value] if isinstance(value, list) else value


def _checked(number: int, values: list[Any], *, changed: bool) -> RepairedLine:
    """The records that can be used; the code of the first that can't."""
    records, left_out = [], None
    for value in values:
        if not isinstance(value, dict):
            left_out = left_out or "NotAnObject"
            continue
        record = _record(value)
        changed = changed or record != value
        try:
            parse_record(record, {})
        except BadRecord as bad:
            left_out = left_out or bad.code
        else:
            records.append(record)
    return RepairedLine(number, tuple(records), changed, left_out)


def _record(value: dict[str, Any]) -> dict[str, Any]:
    """The keys of the shape that fits best, its numbers as text, its roles by their names."""
    if any(keys.match(value.keys()) for keys in input_keys()):
        return {key: _field(key, inner) for key, inner in value.items()}
    for shape in input_keys():
        found = {key: near for key in shape.required if (near := _near(key, value)) is not None}
        if len(found) == len(shape.required) and len(set(found.values())) == len(found):
            optional = {key: key for key in shape.optional if key in value}
            return {k: _field(k, value[name]) for k, name in (found | optional).items()}
    return value


def _near(key: str, value: dict[str, Any]) -> str | None:
    """The key of `value` that means `key`: itself, in another case, or one letter off."""
    names = {str(name).strip().lower(): str(name) for name in value}
    if key in value:
        return key
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.8)
    name = names[near[0]] if near else None
    return name if name in value else None


def _field(key: str, value: Any) -> Any:
    """A number as text; messages with the usual roles."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value:
        return f"{value}"
    if key != "messages" or not isinstance(value, list):
        return value
    return [
        {**message, "role": ROLE_ALIASES.get(role, role)}
        if isinstance(message, dict) and isinstance(role := message.get("role"), str)
        else message
        for message in value
    ]
