"""Read a file as raw records, each with its line. Streams; any bytes give records or findings.

The SHA-256 of a source covers the very bytes that the records came from.
"""

from __future__ import annotations

import codecs
import io
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from cloudft.data.findings import Findings
from cloudft.data.formats.record import BadRecord, JsonObject
from cloudft.data.sources.file_start import FIX_COMMAND, find_foreign_content
from cloudft.data.sources.json_values import ValueBlock
from cloudft.data.sources.line_blocks import (
    Block,
    LineTooLong,
    StreamDigest,
    read_pieces,
    split_lines,
)
from cloudft.data.sources.remedy_commands import complete_commands
from cloudft.data.sources.source_files import SourceFile
from cloudft.data.sources.text_encoding import decode_windows_1252

MAX_RECORD_BYTES = 64 * 1024 * 1024
"""Bytes of the longest line, cell or document. Reading holds one of them at a time."""
LFS_POINTER_BYTES = 256


TakeRows = Callable[[Sequence[str], Sequence[Sequence[str]], Sequence[int]], bool]
"""Gets the names of columns, and rows with a cell for each; returns whether it has taken them."""


@dataclass(frozen=True)
class Row:
    """One raw record. `line` counts from 1; in Parquet, and in tables by columns, it
    is the row; in text it is 1.
    """

    line: int
    value: JsonObject
    format: str | None = None


JsonBlock = Block | ValueBlock
"""Lines of a JSON file, or values that are not one a line."""
BlockReader = Callable[[JsonBlock], Iterator[Row]]


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
        self.findings.add(
            code, message, complete_commands(fix, self.source), file=self.file, line=line
        )

    def add_warning(self, code: str, message: str, fix: str, line: int | None = None) -> None:
        """Add a warning about this file."""
        self.findings.add(code, message, fix, file=self.file, line=line, severity="warning")

    def add_note(self, code: str, message: str) -> None:
        """Add a note about this file."""
        self.findings.add(code, message, "", file=self.file, severity="note")

    @property
    def file(self) -> str:
        """Return the file's name in messages."""
        return self.source.display_name

    def add_bad_record(self, bad: BadRecord, line: int) -> None:
        """Add an error about the record at `line`.

        In CSV, wrong keys are the header's fault and the same for every row: that is one error, in
        line 1, and the rest of the file is not read.
        """
        message = bad.message
        if bad.code == "WrongKeys" and self.source.file_type == "csv":
            message, line, self.is_unreadable = f"wrong header: {message}", 1, True
        self.findings.add(
            bad.code,
            message,
            complete_commands(bad.fix, self.source),
            file=self.file,
            line=line,
            field=bad.field,
            severity=bad.severity,
        )

    def iter_blocks(self, handle: IO[bytes]) -> Iterator[Block]:
        """Yield blocks of whole lines, counted and hashed; stop with an error at an overlong line.

        `handle` is unbuffered.
        """
        return self.iter_line_blocks(read_pieces(handle, self.digest))

    def iter_line_blocks(self, pieces: Iterable[bytes]) -> Iterator[Block]:
        """Yield blocks of whole lines of a file that is read in pieces; see iter_blocks."""
        try:
            for block in split_lines(pieces, MAX_RECORD_BYTES):
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
                if self.is_foreign(raw):
                    return
                raw = self.strip_bom(raw)
            yield number, raw

    def is_foreign(self, start: bytes) -> bool:
        """Return whether a file's first bytes show that it is something else, with an error."""
        source = self.source
        problem = find_foreign_content(start, source.file_type, source.display_name)
        if problem is None:
            return False
        self.add_error(*problem, line=1)
        self.is_unreadable = True
        return True

    def strip_bom(self, raw: bytes) -> bytes:
        """Return the start of the file without a UTF-8 byte order mark, and warn of the mark."""
        if not raw.startswith(codecs.BOM_UTF8):
            return raw
        message = "the file starts with a byte order mark; it is skipped"
        self.add_warning("Bom", message, "save it as UTF-8 without BOM", 1)
        return raw.removeprefix(codecs.BOM_UTF8)

    def warn_crlf(self, number: int) -> None:
        """Warn of lines that end in CR LF. Staging writes LF."""
        message = "lines end in CR LF, as on Windows; the CR is left out"
        fix = "save it with LF alone where you send it anywhere yourself"
        self.add_warning("CarriageReturns", message, fix, number)

    def add_encoding_error(self, raw: bytes, number: int, error: UnicodeDecodeError) -> None:
        """Add an error about bytes that are no UTF-8."""
        message = f"byte 0x{raw[error.start]:02x} at position {error.start + 1} is not UTF-8"
        fix = "save it as UTF-8 (in Excel: CSV UTF-8)"
        if decode_windows_1252(raw) is not None:
            message += "; the text is in Windows-1252"
            fix = f"{FIX_COMMAND} writes a copy in UTF-8"
        self.add_error("NotUtf8", message, fix, number)

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
    read_block: BlockReader | None = None,
    take_rows: TakeRows | None = None,
) -> Iterator[Row]:
    """Yield the records of a file, in order. What can't be read is an error in `context`.

    `read_block` takes the blocks of a JSON file instead, and yields the rows that are still to be
    read singly. `take_rows` gets groups of rows of a table, and returns whether it has taken them.
    """
    try:
        if context.source.file_type in _TABLE_READERS:
            yield from _TABLE_READERS[context.source.file_type](context, take_rows)
        else:
            yield from _READERS[context.source.file_type](context, read_block)
    except OSError as exc:
        context.add_error("FileUnreadable", exc.strerror or str(exc), "make the file readable")
        return
    if context.digest.size == 0 and not context.findings.count_errors(context.source.display_name):
        context.add_error("EmptyFile", "the file is empty", "put records into it, or leave it out")


def _read_json(context: ReadContext, read_block: BlockReader | None) -> Iterator[Row]:
    from cloudft.data.sources.json_rows import read_json

    with context.source.open() as handle:
        yield from read_json(context, read_pieces(handle, context.digest), read_block)


def _read_text(context: ReadContext, read_block: BlockReader | None) -> Iterator[Row]:
    from cloudft.data.sources.text_reader import read_text

    with context.source.open() as handle:
        yield from read_text(context, read_pieces(handle, context.digest), read_block)


def _read_csv(context: ReadContext, take_rows: TakeRows | None) -> Iterator[Row]:
    from cloudft.data.sources.tabular_reader import read_csv_rows

    return read_csv_rows(context, take_rows)


def _read_parquet(context: ReadContext, take_rows: TakeRows | None) -> Iterator[Row]:
    from cloudft.data.sources.arrow_reader import read_parquet_rows

    if not _is_lfs_pointer(context):
        yield from read_parquet_rows(context, take_rows)


def _read_arrow(context: ReadContext, take_rows: TakeRows | None) -> Iterator[Row]:
    from cloudft.data.sources.arrow_reader import read_arrow_rows

    if not _is_lfs_pointer(context):
        yield from read_arrow_rows(context, take_rows)


def _is_lfs_pointer(context: ReadContext) -> bool:
    """Return whether a binary file is a pointer of Git LFS; if so, add an error."""
    with context.source.open() as handle:
        return context.is_foreign(handle.read(LFS_POINTER_BYTES))


def _read_text_lines(context: ReadContext, read_block: BlockReader | None) -> Iterator[Row]:
    from cloudft.data.sources.text_reader import read_text_lines

    with context.source.open() as handle:
        yield from read_text_lines(context, read_pieces(handle, context.digest))


_READERS: dict[str, Callable[[ReadContext, BlockReader | None], Iterator[Row]]] = {
    "jsonl": _read_json,
    "text": _read_text,
    "text lines": _read_text_lines,
}
_TABLE_READERS: dict[str, Callable[[ReadContext, TakeRows | None], Iterator[Row]]] = {
    "csv": _read_csv,
    "parquet": _read_parquet,
    "arrow": _read_arrow,
}
