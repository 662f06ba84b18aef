"""A file in, raw records out, each with its line. Streams; any bytes give records or findings.

The SHA-256 of a source covers the very bytes that the records came from.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO

from cloudft.data.badjson import diagnose, repeated_key
from cloudft.data.blocks import Block, Digest, TooLong, blocks, read_up_to
from cloudft.data.findings import Findings
from cloudft.data.sources import SourceFile

LONGEST = 64 * 1024 * 1024
"""Bytes of the longest line, cell or document. Reading holds one of them at a time."""

ARCHIVES = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
"""How packed files begin."""


@dataclass(frozen=True)
class Row:
    """One raw record. `line` counts from 1; in Parquet it is the row, in text always 1."""

    line: int
    value: object
    shape: str | None = None


@dataclass
class Reading:
    """One file being read: where it is, what was found wrong, and what went by.

    `hopeless` is set when the rest of the file is not worth reading.
    """

    source: SourceFile
    findings: Findings
    digest: Digest = field(default_factory=Digest)
    hopeless: bool = False

    def note(self, code: str, message: str, fix: str, line: int | None = None) -> None:
        """Add an error about this file."""
        self.findings.note(code, message, fix, file=self.source.shown, line=line)

    def blocks(self, handle: IO[bytes]) -> Iterator[Block]:
        """Blocks of whole lines, counted and hashed; a line that is too long is noted, and ends it.

        `handle` is unbuffered.
        """
        try:
            for block in blocks(handle, LONGEST, self.digest):
                yield block
                if self.hopeless:
                    return
        except TooLong as error:
            fix = "is it JSONL? one record a line"
            self.note("RecordTooLong", f"a line of more than {LONGEST} bytes", fix, error.line)

    def lines_of(self, block: Block) -> Iterator[tuple[int, bytes]]:
        """Every line with its number, the byte order mark taken off."""
        for number, raw in enumerate(io.BytesIO(block.raw), block.first):
            if number == 1:
                if self._is_something_else(raw):
                    self.hopeless = True
                    return
                raw = self.without_mark(raw)
            yield number, raw

    def _is_something_else(self, first: bytes) -> bool:
        """True, with a finding, for the first line of a file that is no UTF-8 text at all."""
        if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            self.note("NotUtf8", "the file is UTF-16", "save the file as UTF-8", 1)
            return True
        for magic, name in ARCHIVES.items():
            if first.startswith(magic):
                message, fix = f"the file is packed with {name}", f"unpack it first, with {name}"
                self.note("Compressed", message, fix, 1)
                return True
        return False

    def without_mark(self, raw: bytes) -> bytes:
        """The start of the file without a UTF-8 byte order mark, which is worth a warning."""
        if not raw.startswith(codecs.BOM_UTF8):
            return raw
        self.findings.note(
            "Bom",
            "the file starts with a byte order mark; it is skipped",
            "save it as UTF-8 without BOM",
            file=self.source.shown,
            line=1,
            severity="warning",
        )
        return raw.removeprefix(codecs.BOM_UTF8)

    def windows_line_ends(self, number: int) -> None:
        """Warn of lines that end in CR LF. Staging writes LF."""
        self.findings.note(
            "CarriageReturns",
            "lines end in CR LF, as on Windows; the CR is left out",
            "save it with LF alone where you send it anywhere yourself",
            file=self.source.shown,
            line=number,
            severity="warning",
        )

    def not_utf8(self, raw: bytes, number: int, error: UnicodeDecodeError) -> None:
        """Note bytes that are no UTF-8."""
        message = f"byte 0x{raw[error.start]:02x} at position {error.start + 1} is not UTF-8"
        self.note("NotUtf8", message, "save the file as UTF-8", number)

    def text(self, raw: bytes, number: int) -> str | None:
        """The bytes as text, None with a finding when they are not UTF-8."""
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as exc:
            self.not_utf8(raw, number, exc)
            return None


def rows(reading: Reading, look: Callable[[Block], Iterator[Row]] | None = None) -> Iterator[Row]:
    """The records of a file, in order. What can't be read is noted in `reading` and left out.

    `look` takes the blocks of a JSONL file instead, and gives the rows that are still to be seen.
    """
    try:
        if reading.source.kind == "jsonl":
            yield from _jsonl(reading, look or (lambda block: json_rows(reading, block)))
        else:
            yield from _READERS[reading.source.kind](reading)
    except OSError as exc:
        reading.note("FileUnreadable", exc.strerror or str(exc), "make the file readable")
        return
    if reading.digest.size == 0 and not reading.findings.errors(reading.source.shown):
        reading.note("EmptyFile", "the file is empty", "put records into it, or leave it out")


def _jsonl(reading: Reading, look: Callable[[Block], Iterator[Row]]) -> Iterator[Row]:
    """One JSON object a line."""
    with reading.source.open() as handle:
        for block in reading.blocks(handle):
            yield from look(block)


def json_rows(reading: Reading, block: Block) -> Iterator[Row]:
    """The records of a block, line by line."""
    for number, raw in reading.lines_of(block):
        stripped = raw.strip()
        if raw.endswith(b"\r\n"):
            reading.windows_line_ends(number)
        if not stripped:
            fix = "remove the line: Bedrock takes no blank ones"
            reading.note("BlankLine", "a blank line", fix, number)
            continue
        if _is_one_big_json(reading, number, stripped):
            reading.hopeless = True
            return
        value, known = _json(reading, number, stripped)
        if isinstance(value, dict):
            twice = repeated_key(stripped, value)
            if twice is None:
                yield Row(number, value)
            else:
                fix = "keep one of them: a parser takes the last and says nothing"
                reading.note("RepeatedKey", f"the key {twice[:40]!r} stands twice", fix, number)
        elif known:
            message = f"the line is {_kind(value)}, not an object"
            reading.note("NotAnObject", message, 'write {"prompt": ..., ...}', number)


def _is_one_big_json(reading: Reading, number: int, first: bytes) -> bool:
    """True, with a finding, for a JSON file that isn't JSONL: an array, or indented objects."""
    if number == 1 and first.startswith(b"["):
        message, fix = "a JSON array, not one object a line", "jq -c '.[]' FILE > FILE.jsonl"
        reading.note("JsonArray", message, fix, number)
        return True
    if number == 1 and first == b"{":
        message, fix = "indented JSON, not one object a line", "jq -c . FILE > FILE.jsonl"
        reading.note("BadJson", message, fix, number)
        return True
    return False


def _json(reading: Reading, number: int, raw: bytes) -> tuple[object, bool]:
    """The value of a line and True; None and False, with a finding, when it is no JSON."""
    import orjson

    try:
        return orjson.loads(raw), True
    except orjson.JSONDecodeError as exc:
        if reading.text(raw, number) is not None:
            reading.note(*diagnose(raw, exc), number)
        return None, False


def _kind(value: object) -> str:
    names = {list: "an array", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _text(reading: Reading) -> Iterator[Row]:
    """A whole file as one document."""
    with reading.source.open() as handle:
        raw = read_up_to(handle, LONGEST + 1)
    reading.digest.update(raw)
    if len(raw) > LONGEST:
        reading.note("RecordTooLong", f"a text of more than {LONGEST} bytes", "split the file")
        return
    raw = reading.without_mark(raw)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as exc:
        _text_not_utf8(reading, raw, exc)
        return
    if text:
        yield Row(1, {"text": text}, "document")


def _text_not_utf8(reading: Reading, raw: bytes, error: UnicodeDecodeError) -> None:
    """The finding names line and column, not the offset in the whole file."""
    start = raw.rfind(b"\n", 0, error.start) + 1
    number = raw.count(b"\n", 0, error.start) + 1
    column = UnicodeDecodeError("utf-8", raw, error.start - start, error.end - start, error.reason)
    reading.not_utf8(raw[start:], number, column)


def _csv(reading: Reading) -> Iterator[Row]:
    from cloudft.data.tables import csv_rows

    return csv_rows(reading)


def _parquet(reading: Reading) -> Iterator[Row]:
    from cloudft.data.tables import parquet_rows

    return parquet_rows(reading)


_READERS: dict[str, Callable[[Reading], Iterator[Row]]] = {
    "csv": _csv,
    "text": _text,
    "parquet": _parquet,
}
