"""A file in, raw records out, each with its line. Streams; any bytes give records or findings.

The SHA-256 of a source covers the very bytes that the records came from.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO

from cloudft.data.findings import Findings
from cloudft.data.sources.json_errors import diagnose_json_error, find_repeated_key
from cloudft.data.sources.line_blocks import (
    Block,
    LineTooLong,
    StreamDigest,
    read_blocks,
    read_up_to,
)
from cloudft.data.sources.source_files import SourceFile

MAX_RECORD_BYTES = 64 * 1024 * 1024
"""Bytes of the longest line, cell or document. Reading holds one of them at a time."""

ARCHIVE_MAGIC = {
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
    format: str | None = None


@dataclass
class ReadContext:
    """One file being read: where it is, what was found wrong, and what went by.

    `hopeless` is set when the rest of the file is not worth reading.
    """

    source: SourceFile
    findings: Findings
    digest: StreamDigest = field(default_factory=StreamDigest)
    is_unreadable: bool = False

    def add_error(self, code: str, message: str, fix: str, line: int | None = None) -> None:
        """Add an error about this file."""
        self.findings.add(code, message, fix, file=self.source.display_name, line=line)

    def iter_blocks(self, handle: IO[bytes]) -> Iterator[Block]:
        """Blocks of whole lines, counted and hashed; a line that is too long is noted, and ends it.

        `handle` is unbuffered.
        """
        try:
            for block in read_blocks(handle, MAX_RECORD_BYTES, self.digest):
                yield block
                if self.is_unreadable:
                    return
        except LineTooLong as error:
            fix = "is it JSONL? one record a line"
            self.add_error(
                "RecordTooLong", f"a line of more than {MAX_RECORD_BYTES} bytes", fix, error.line
            )

    def iter_lines(self, block: Block) -> Iterator[tuple[int, bytes]]:
        """Every line with its number, the byte order mark taken off."""
        for number, raw in enumerate(io.BytesIO(block.raw), block.first_line):
            if number == 1:
                if self._is_something_else(raw):
                    self.is_unreadable = True
                    return
                raw = self.strip_bom(raw)
            yield number, raw

    def _is_something_else(self, first: bytes) -> bool:
        """True, with a finding, for the first line of a file that is no UTF-8 text at all."""
        if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            self.add_error("NotUtf8", "the file is UTF-16", "save the file as UTF-8", 1)
            return True
        for magic, name in ARCHIVE_MAGIC.items():
            if first.startswith(magic):
                message, fix = f"the file is packed with {name}", f"unpack it first, with {name}"
                self.add_error("Compressed", message, fix, 1)
                return True
        return False

    def strip_bom(self, raw: bytes) -> bytes:
        """The start of the file without a UTF-8 byte order mark, which is worth a warning."""
        if not raw.startswith(codecs.BOM_UTF8):
            return raw
        self.findings.add(
            "Bom",
            "the file starts with a byte order mark; it is skipped",
            "save it as UTF-8 without BOM",
            file=self.source.display_name,
            line=1,
            severity="warning",
        )
        return raw.removeprefix(codecs.BOM_UTF8)

    def warn_crlf(self, number: int) -> None:
        """Warn of lines that end in CR LF. Staging writes LF."""
        self.findings.add(
            "CarriageReturns",
            "lines end in CR LF, as on Windows; the CR is left out",
            "save it with LF alone where you send it anywhere yourself",
            file=self.source.display_name,
            line=number,
            severity="warning",
        )

    def add_encoding_error(self, raw: bytes, number: int, error: UnicodeDecodeError) -> None:
        """Note bytes that are no UTF-8."""
        message = f"byte 0x{raw[error.start]:02x} at position {error.start + 1} is not UTF-8"
        self.add_error("NotUtf8", message, "save the file as UTF-8", number)

    def decode_text(self, raw: bytes, number: int) -> str | None:
        """The bytes as text, None with a finding when they are not UTF-8."""
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as exc:
            self.add_encoding_error(raw, number, exc)
            return None


def read_rows(
    reading: ReadContext, read_block: Callable[[Block], Iterator[Row]] | None = None
) -> Iterator[Row]:
    """The records of a file, in order. What can't be read is noted in `reading` and left out.

    `look` takes the blocks of a JSONL file instead, and gives the rows that are still to be seen.
    """
    try:
        if reading.source.file_type == "jsonl":
            yield from _jsonl(reading, read_block or (lambda block: read_json_rows(reading, block)))
        else:
            yield from _READERS[reading.source.file_type](reading)
    except OSError as exc:
        reading.add_error("FileUnreadable", exc.strerror or str(exc), "make the file readable")
        return
    if reading.digest.size == 0 and not reading.findings.count_errors(reading.source.display_name):
        reading.add_error("EmptyFile", "the file is empty", "put records into it, or leave it out")


def _jsonl(reading: ReadContext, look: Callable[[Block], Iterator[Row]]) -> Iterator[Row]:
    """One JSON object a line."""
    with reading.source.open() as handle:
        for block in reading.iter_blocks(handle):
            yield from look(block)


def read_json_rows(reading: ReadContext, block: Block) -> Iterator[Row]:
    """The records of a block, line by line."""
    for number, raw in reading.iter_lines(block):
        stripped = raw.strip()
        if raw.endswith(b"\r\n"):
            reading.warn_crlf(number)
        if not stripped:
            fix = "remove the line: Bedrock takes no blank ones"
            reading.add_error("BlankLine", "a blank line", fix, number)
            continue
        if _is_one_big_json(reading, number, stripped):
            reading.is_unreadable = True
            return
        value, known = _json(reading, number, stripped)
        if isinstance(value, dict):
            twice = find_repeated_key(stripped, value)
            if twice is None:
                yield Row(number, value)
            else:
                fix = "keep one of them: a parser takes the last and says nothing"
                reading.add_error(
                    "RepeatedKey", f"the key {twice[:40]!r} stands twice", fix, number
                )
        elif known:
            message = f"the line is {_kind(value)}, not an object"
            reading.add_error("NotAnObject", message, 'write {"prompt": ..., ...}', number)


def _is_one_big_json(reading: ReadContext, number: int, first: bytes) -> bool:
    """True, with a finding, for a JSON file that isn't JSONL: an array, or indented objects."""
    if number == 1 and first.startswith(b"["):
        message, fix = "a JSON array, not one object a line", "jq -c '.[]' FILE > FILE.jsonl"
        reading.add_error("JsonArray", message, fix, number)
        return True
    if number == 1 and first == b"{":
        message, fix = "indented JSON, not one object a line", "jq -c . FILE > FILE.jsonl"
        reading.add_error("BadJson", message, fix, number)
        return True
    return False


def _json(reading: ReadContext, number: int, raw: bytes) -> tuple[object, bool]:
    """The value of a line and True; None and False, with a finding, when it is no JSON."""
    import orjson

    try:
        return orjson.loads(raw), True
    except orjson.JSONDecodeError as exc:
        if reading.decode_text(raw, number) is not None:
            reading.add_error(*diagnose_json_error(raw, exc), number)
        return None, False


def _kind(value: object) -> str:
    names = {list: "an array", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _text(reading: ReadContext) -> Iterator[Row]:
    """A whole file as one document."""
    with reading.source.open() as handle:
        raw = read_up_to(handle, MAX_RECORD_BYTES + 1)
    reading.digest.update(raw)
    if len(raw) > MAX_RECORD_BYTES:
        reading.add_error(
            "RecordTooLong", f"a text of more than {MAX_RECORD_BYTES} bytes", "split the file"
        )
        return
    raw = reading.strip_bom(raw)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as exc:
        _text_not_utf8(reading, raw, exc)
        return
    if text:
        yield Row(1, {"text": text}, "document")


def _text_not_utf8(reading: ReadContext, raw: bytes, error: UnicodeDecodeError) -> None:
    """The finding names line and column, not the offset in the whole file."""
    start = raw.rfind(b"\n", 0, error.start) + 1
    number = raw.count(b"\n", 0, error.start) + 1
    column = UnicodeDecodeError("utf-8", raw, error.start - start, error.end - start, error.reason)
    reading.add_encoding_error(raw[start:], number, column)


def _csv(reading: ReadContext) -> Iterator[Row]:
    from cloudft.data.sources.tabular_reader import read_csv_rows

    return read_csv_rows(reading)


def _parquet(reading: ReadContext) -> Iterator[Row]:
    from cloudft.data.sources.tabular_reader import read_parquet_rows

    return read_parquet_rows(reading)


_READERS: dict[str, Callable[[ReadContext], Iterator[Row]]] = {
    "csv": _csv,
    "text": _text,
    "parquet": _parquet,
}
