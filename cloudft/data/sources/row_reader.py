"""Read a file as raw records, each with its line. Streams; any bytes give records or findings.

The SHA-256 of a source covers the very bytes that the records came from.
"""

from __future__ import annotations

import codecs
import io
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from cloudft.data.findings import Findings
from cloudft.data.formats.columns_line import name_file
from cloudft.data.formats.record import BadRecord, JsonObject
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
"""How compressed files begin."""


TakeRows = Callable[[Sequence[str], Sequence[Sequence[str]], Sequence[int]], bool]
"""Gets the names of columns, and rows with a cell for each; returns whether it has taken them."""


@dataclass(frozen=True)
class Row:
    """One raw record. `line` counts from 1; in Parquet it is the row, in text always 1."""

    line: int
    value: JsonObject
    format: str | None = None


@dataclass
class ReadContext:
    """One file being read: where it is, what was found wrong, and the bytes read so far.

    `is_unreadable` is set when the rest of the file is not worth reading.
    """

    source: SourceFile
    findings: Findings
    digest: StreamDigest = field(default_factory=StreamDigest)
    is_unreadable: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)
    """The columns that the user names (`data.columns`), by canonical key."""

    def add_error(self, code: str, message: str, fix: str, line: int | None = None) -> None:
        """Add an error about this file. The commands in `fix` get its name."""
        file = self.source.display_name
        self.findings.add(code, message, name_file(fix, file), file=file, line=line)

    def add_bad_record(self, bad: BadRecord, line: int) -> None:
        """Add an error about the record at `line`.

        In CSV, wrong keys are the header's fault and the same for every row: that is one error, in
        line 1, and the rest of the file is not read.
        """
        message = bad.message
        if bad.code == "WrongKeys" and self.source.file_type == "csv":
            message, line, self.is_unreadable = f"wrong header: {message}", 1, True
        file = self.source.display_name
        self.findings.add(
            bad.code,
            message,
            name_file(bad.fix, file),
            file=file,
            line=line,
            field=bad.field,
            severity=bad.severity,
        )

    def iter_blocks(self, handle: IO[bytes]) -> Iterator[Block]:
        """Yield blocks of whole lines, counted and hashed; stop with an error at an overlong line.

        `handle` is unbuffered.
        """
        try:
            for block in read_blocks(handle, MAX_RECORD_BYTES, self.digest):
                yield block
                if self.is_unreadable:
                    return
        except LineTooLong as error:
            fix = "is it JSONL? one record a line"
            message = f"a line of more than {MAX_RECORD_BYTES} bytes"
            self.add_error("RecordTooLong", message, fix, error.line)

    def iter_lines(self, block: Block) -> Iterator[tuple[int, bytes]]:
        """Yield every line with its number, the byte order mark taken off."""
        for number, raw in enumerate(io.BytesIO(block.raw), block.first_line):
            if number == 1:
                if self._is_not_text(raw):
                    self.is_unreadable = True
                    return
                raw = self.strip_bom(raw)
            yield number, raw

    def _is_not_text(self, first: bytes) -> bool:
        """Return whether the first line shows that this is no UTF-8 text; if so, add an error."""
        if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            fix = f"save it as UTF-8: {self.conversion_command('UTF-16')}"
            self.add_error("NotUtf8", "the file is UTF-16", fix, 1)
            return True
        for magic, name in ARCHIVE_MAGIC.items():
            if first.startswith(magic):
                message = f"the file is compressed with {name}"
                self.add_error("Compressed", message, f"unpack it first, with {name}", 1)
                return True
        return False

    def strip_bom(self, raw: bytes) -> bytes:
        """Return the start of the file without a UTF-8 byte order mark, and warn of the mark."""
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
        """Add an error about bytes that are no UTF-8."""
        message = f"byte 0x{raw[error.start]:02x} at position {error.start + 1} is not UTF-8"
        self.add_error("NotUtf8", message, "save the file as UTF-8", number)

    def conversion_command(self, encoding: str) -> str:
        """Return a command that writes the file in UTF-8 beside it, in backquotes."""
        old, new = self.copy_names("utf8")
        return f"`iconv -f {encoding} -t UTF-8 {old} > {new}`"

    def copy_names(self, mark: str) -> tuple[str, str]:
        """Return the file's name and that of a copy beside it, for a shell."""
        path = Path(self.source.display_name)
        new = path.with_name(f"{path.stem}.{mark}{path.suffix}")
        return shlex.quote(str(path)), shlex.quote(str(new))

    def decode_text(self, raw: bytes, number: int) -> str | None:
        """Return the bytes as text; None, with an error, if they are no UTF-8."""
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as exc:
            self.add_encoding_error(raw, number, exc)
            return None


def read_rows(
    context: ReadContext,
    read_block: Callable[[Block], Iterator[Row]] | None = None,
    take_rows: TakeRows | None = None,
) -> Iterator[Row]:
    """Yield the records of a file, in order. What can't be read is an error in `context`.

    `read_block` takes the blocks of a JSONL file instead, and yields the rows that are still to be
    read singly. `take_rows` gets groups of rows of a table, and returns whether it has taken them.
    """
    try:
        if context.source.file_type == "jsonl":
            yield from _read_jsonl(context, read_block)
        elif context.source.file_type == "csv":
            yield from _read_csv(context, take_rows)
        else:
            yield from _READERS[context.source.file_type](context)
    except OSError as exc:
        context.add_error("FileUnreadable", exc.strerror or str(exc), "make the file readable")
        return
    if context.digest.size == 0 and not context.findings.count_errors(context.source.display_name):
        context.add_error("EmptyFile", "the file is empty", "put records into it, or leave it out")


def _read_jsonl(
    context: ReadContext, read_block: Callable[[Block], Iterator[Row]] | None
) -> Iterator[Row]:
    with context.source.open() as handle:
        for block in context.iter_blocks(handle):
            yield from read_block(block) if read_block else read_json_rows(context, block)


def read_json_rows(context: ReadContext, block: Block) -> Iterator[Row]:
    """Yield the records of a block, line by line."""
    for number, raw in context.iter_lines(block):
        stripped = raw.strip()
        if raw.endswith(b"\r\n"):
            context.warn_crlf(number)
        if not stripped:
            fix = "remove the line: Bedrock takes no blank ones"
            context.add_error("BlankLine", "a blank line", fix, number)
            continue
        if _is_one_big_json(context, number, stripped):
            context.is_unreadable = True
            return
        value, is_json = _parse_json(context, number, stripped)
        if isinstance(value, dict):
            repeated = find_repeated_key(stripped, value)
            if repeated is None:
                yield Row(number, value)
            else:
                message = f"the key {repeated[:40]!r} is repeated"
                fix = "keep one of them: a parser takes the last without a warning"
                context.add_error("RepeatedKey", message, fix, number)
        elif is_json:
            message = f"the line is {_type_name(value)}, not an object"
            context.add_error("NotAnObject", message, 'write {"prompt": ..., ...}', number)


def _is_one_big_json(context: ReadContext, number: int, first: bytes) -> bool:
    """Return whether the file is an array or indented objects, not JSONL; if so, add an error."""
    if number == 1 and first.startswith(b"["):
        message, fix = "a JSON array, not one object a line", "jq -c '.[]' FILE > FILE.jsonl"
        context.add_error("JsonArray", message, fix, number)
        return True
    if number == 1 and first == b"{":
        message, fix = "indented JSON, not one object a line", "jq -c . FILE > FILE.jsonl"
        context.add_error("BadJson", message, fix, number)
        return True
    return False


def _parse_json(context: ReadContext, number: int, raw: bytes) -> tuple[object, bool]:
    """Return the value of a line and True; None and False, with an error, if it is no JSON."""
    import orjson

    try:
        return orjson.loads(raw), True
    except orjson.JSONDecodeError as exc:
        if context.decode_text(raw, number) is not None:
            context.add_error(*diagnose_json_error(raw, exc), number)
        return None, False


def _type_name(value: object) -> str:
    names = {list: "an array", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _read_text(context: ReadContext) -> Iterator[Row]:
    """Yield a whole text file as one document."""
    with context.source.open() as handle:
        raw = read_up_to(handle, MAX_RECORD_BYTES + 1)
    context.digest.update(raw)
    if len(raw) > MAX_RECORD_BYTES:
        message = f"a text of more than {MAX_RECORD_BYTES} bytes"
        context.add_error("RecordTooLong", message, "split the file")
        return
    raw = context.strip_bom(raw)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as exc:
        _add_text_encoding_error(context, raw, exc)
        return
    if text:
        yield Row(1, {"text": text}, "document")


def _add_text_encoding_error(context: ReadContext, raw: bytes, error: UnicodeDecodeError) -> None:
    """Add an error that names line and column, not the offset in the whole file."""
    start = raw.rfind(b"\n", 0, error.start) + 1
    number = raw.count(b"\n", 0, error.start) + 1
    column = UnicodeDecodeError("utf-8", raw, error.start - start, error.end - start, error.reason)
    context.add_encoding_error(raw[start:], number, column)


def _read_csv(context: ReadContext, take_rows: TakeRows | None) -> Iterator[Row]:
    from cloudft.data.sources.tabular_reader import read_csv_rows

    return read_csv_rows(context, take_rows)


def _read_parquet(context: ReadContext) -> Iterator[Row]:
    from cloudft.data.sources.arrow_reader import read_parquet_rows

    return read_parquet_rows(context)


def _read_arrow(context: ReadContext) -> Iterator[Row]:
    from cloudft.data.sources.arrow_reader import read_arrow_rows

    return read_arrow_rows(context)


_READERS: dict[str, Callable[[ReadContext], Iterator[Row]]] = {
    "text": _read_text,
    "parquet": _read_parquet,
    "arrow": _read_arrow,
}
