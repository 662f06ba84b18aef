"""Read the records that a page shows: as they are in the file, and what cloudft reads in them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import orjson

from cloudft.data.findings import Findings
from cloudft.data.formats.recognizer import parse_record
from cloudft.data.formats.record import BadRecord, Record
from cloudft.data.record_index import RawLine
from cloudft.data.record_view import RecordView, view_record
from cloudft.data.sources.json_layout import detect_layout
from cloudft.data.sources.json_rows import read_json_rows
from cloudft.data.sources.line_blocks import SMALL_FILE, Block
from cloudft.data.sources.row_reader import ReadContext, Row, read_rows
from cloudft.data.sources.source_files import SourceFile
from cloudft.errors import UsageError
from cloudft.types import Finding
from cloudft.workbench.data_pages.choices import DataFile, DataSet

MAX_LISTED_BYTES = 256 * 1024
"""Bytes of a line up to which a list reads it as a record."""
MAX_RECORD_BYTES = 8 * 1024 * 1024
"""Bytes of a line up to which a page of one record reads it."""
MAX_SEQUENTIAL = 20_000
"""Records up to which a file is shown that can only be read from its beginning."""


@dataclass(frozen=True)
class ShownRecord:
    """A record of a page. `number` counts records; in a JSONL file it is the line.

    `text` is the record as it is in the file, or its beginning. `record` is None for one that can't
    be used: `findings` say why.
    """

    number: int
    line: int
    text: str
    size: int
    is_whole: bool
    record: Record | None
    view: RecordView | None
    findings: tuple[Finding, ...]


def has_random_access(source: SourceFile) -> bool:
    """Return whether any line can be read without those before it. Raise OSError."""
    if source.file_type != "jsonl" or source.is_packed:
        return False
    with source.path.open("rb") as handle:
        start = handle.read(SMALL_FILE)
    return detect_layout(start, is_whole=len(start) < SMALL_FILE).kind == "lines"


@contextlib.contextmanager
def reading(file: DataFile) -> Iterator[None]:
    """Raise UsageError in place of an OSError within the block."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"{file.name} can't be read: {(error.strerror or str(error)).lower()}",
            fix="choose the data again on the page Data.",
        ) from error


def show_line(line: RawLine, data: DataSet, file: DataFile) -> ShownRecord:
    """Return the record of a line, with what is wrong with it."""
    findings = Findings()
    record: Record | None = None
    if not line.is_whole:
        message = f"the line has {line.size:,} bytes: it is not read as a record on this page"
        findings.add("LongLine", message, "", line=line.number, severity="note")
    elif not line.raw.strip():
        findings.add("BlankLine", "a blank line", "", line=line.number, severity="note")
    else:
        context = ReadContext(file.source, findings, columns=data.columns)
        block = Block(line.number, line.raw + b"\n", 1)
        rows = list(islice(read_json_rows(context, block), 2))
        if len(rows) > 1:
            message = "the line holds several records: the first one is shown"
            findings.add("SeveralRecords", message, "", line=line.number, severity="note")
        record = _parse(rows[0], data, context) if rows else None
    text = line.raw.decode("utf-8", "replace")
    view = view_record(record) if record else None
    return ShownRecord(
        line.number, line.number, text, line.size, line.is_whole, record, view, findings.all()
    )


def read_sequentially(
    data: DataSet, file: DataFile, first: int, count: int
) -> tuple[list[ShownRecord], tuple[Finding, ...]]:
    """Return records of a file that is read from its beginning, and what is wrong with the file."""
    findings = Findings()
    context = ReadContext(file.source, findings, columns=data.columns)
    rows = islice(read_rows(context), max(0, first - 1), min(first - 1 + count, MAX_SEQUENTIAL))
    shown = [_show_row(number, row, data, file) for number, row in enumerate(rows, first)]
    return shown, findings.all()


def find_number(data: DataSet, file: DataFile, line: int) -> int | None:
    """Return the number of the record at a line of a file that is read from its beginning."""
    context = ReadContext(file.source, Findings(), columns=data.columns)
    rows: Iterator[Row] = islice(read_rows(context), MAX_SEQUENTIAL)
    return next((number for number, row in enumerate(rows, 1) if row.line >= line), None)


def _show_row(number: int, row: Row, data: DataSet, file: DataFile) -> ShownRecord:
    findings = Findings()
    context = ReadContext(file.source, findings, columns=data.columns)
    record = _parse(row, data, context)
    text = orjson.dumps(row.value, default=str).decode()
    view = view_record(record) if record else None
    size = len(text.encode())
    return ShownRecord(number, row.line, text, size, True, record, view, findings.all())


def _parse(row: Row, data: DataSet, context: ReadContext) -> Record | None:
    try:
        return parse_record(row.value, data.columns, data.target)
    except BadRecord as bad:
        context.add_bad_record(bad, row.line)
        return None
