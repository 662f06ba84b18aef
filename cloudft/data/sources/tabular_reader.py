"""Read CSV in any dialect: rows with named columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import IO, TYPE_CHECKING

from cloudft.data.formats.record import JsonObject
from cloudft.data.sources.csv_cells import BadCell, decode_cell, structured_columns
from cloudft.data.sources.csv_dialect import (
    CsvDialect,
    count_used_cells,
    determine_dialect,
    sample_lines,
)
from cloudft.data.sources.csv_header import BadHeader, Columns, determine_columns
from cloudft.data.sources.line_blocks import Block
from cloudft.data.sources.row_reader import MAX_RECORD_BYTES, ReadContext, Row, TakeRows
from cloudft.types import Severity

if TYPE_CHECKING:
    from _csv import Reader

FIRST_LINE = 1
GROUP_ROWS = 512
GROUP_CHARACTERS = 1024 * 1024
"""Rows, and characters of their outer cells, from which rows are handled before more are read."""


def read_csv_rows(context: ReadContext, take_rows: TakeRows | None = None) -> Iterator[Row]:
    """Yield the rows of a .csv (comma) or .tsv (tab), or of what has another delimiter.

    `take_rows` gets the names of the columns and rows that have a cell for each; what it takes, for
    which it returns True, is not yielded.
    """
    csv.field_size_limit(MAX_RECORD_BYTES)  # the module's own limit is global, and 128 KiB
    with context.source.open() as handle:
        blocks = _decoded_blocks(context, handle)
        first = next(blocks, [])
        if not any(line.strip() for line in first) or _has_old_line_ends(context, first):
            return
        usual = "\t" if context.source.path.suffix.lower() == ".tsv" else ","
        dialect, rows = determine_dialect(sample_lines(first), usual)
        _note_dialect(context, dialect, usual)
        table = dialect.reader(chain(first, chain.from_iterable(blocks)))
        try:
            yield from _read_table(context, table, dialect, rows, take_rows)
        except csv.Error as exc:
            if not context.is_unreadable:  # else a quote is open because the rest was not read
                context.add_error("BadCsv", f"not CSV: {exc}", _quoting_fix(rows), table.line_num)


def _quoting_fix(rows: Sequence[Sequence[str]]) -> str:
    fix = "correct the quotes; a quote within a cell is written twice"
    if any(cell.endswith("\\") for row in rows for cell in row):
        fix += ', not \\"'
    return fix


def _decoded_blocks(context: ReadContext, handle: IO[bytes]) -> Iterator[Sequence[str]]:
    """Yield the file's lines as text, a block at a time; stop with an error at no UTF-8."""
    for block in context.iter_blocks(handle):
        # The first line may show that this is no text, or have a byte order mark.
        lines = None if block.first_line == FIRST_LINE else _decode(block.raw)
        if lines is None:
            lines = list(_decoded_lines(context, block))
        yield lines


def _decode(raw: bytes) -> list[str] | None:
    try:
        # Without translation, and cut at LF alone: the csv module knows CR LF.
        return list(io.StringIO(raw.decode("utf-8"), newline="\n"))
    except UnicodeDecodeError:
        return None


def _decoded_lines(context: ReadContext, block: Block) -> Iterator[str]:
    for number, raw in context.iter_lines(block):
        try:
            yield raw.decode("utf-8")
        except UnicodeDecodeError as error:
            context.add_encoding_error(raw, number, error)
            context.is_unreadable = True  # so are the other lines of a file in another encoding
            return


def _has_old_line_ends(context: ReadContext, lines: Sequence[str]) -> bool:
    """Return whether lines end in CR alone; if so, add an error."""
    if len(lines) > 1 or "\r" not in lines[0].rstrip("\r\n"):
        return False
    try:
        list(CsvDialect(",").reader(lines))
    except csv.Error:
        old, new = context.copy_names("lf")
        fix = f"convert them: `tr '\\r' '\\n' < {old} > {new}`"
        context.add_error("BadCsv", "lines end in CR alone, as on old Macs", fix, FIRST_LINE)
        context.is_unreadable = True
        return True
    return False


def _note_dialect(context: ReadContext, dialect: CsvDialect, usual: str) -> None:
    differences = dialect.describe(usual)
    if differences:
        _add(context, "CsvDialect", f"read as CSV with {differences}", "", severity="note")


def _add(
    context: ReadContext,
    code: str,
    message: str,
    fix: str,
    line: int | None = None,
    severity: Severity = "warning",
) -> None:
    file = context.source.display_name
    context.findings.add(code, message, fix, file=file, line=line, severity=severity)


def _read_table(
    context: ReadContext,
    table: Reader,
    dialect: CsvDialect,
    rows: Sequence[Sequence[str]],
    take_rows: TakeRows | None,
) -> Iterator[Row]:
    if dialect.has_hint:
        next(table)
    line = 1
    first: list[str] = []
    while not any(first):  # a spreadsheet may have empty rows above the names
        line, row = table.line_num + 1, next(table, None)
        if row is None:
            return
        first = row
    try:
        columns = determine_columns(rows or [first], context.columns.values())
    except BadHeader as bad:
        context.add_error("WrongColumns", bad.message, bad.fix, line)
        return
    _note_columns(context, columns, line)
    reader = _TableReader(context, columns, first if columns.has_header else [], take_rows)
    above = [] if columns.has_header else [(line, first)]
    yield from reader.named_rows(_row_groups(above, table))


def _note_columns(context: ReadContext, columns: Columns, line: int) -> None:
    if not columns.has_header:
        names = f"column_1 to column_{len(columns.names)}" if columns.names[1:] else "column_1"
        message = f"the first row is a record, not names: the columns are called {names}"
        fix = "if it is names, shorten them, or name them in data.columns as they are"
        severity: Severity = "note" if columns.is_sure else "warning"
        _add(context, "NoHeader", message, "" if columns.is_sure else fix, line, severity)
    if columns.empty or columns.index:
        listed = ", ".join(map(str, sorted([*columns.empty, *columns.index])))
        message = f"columns without a name are left out: {listed} (counted from 1)"
        _add(context, "UnnamedColumns", message, "", severity="note")


@dataclass
class _TableReader:
    """Makes mappings of the rows of one table."""

    context: ReadContext
    columns: Columns
    header: Sequence[str]
    """The first row; empty if it is a record."""
    take_rows: TakeRows | None
    _kept: list[tuple[int, str]] = field(init=False)
    _structured: list[str] = field(init=False)

    def __post_init__(self) -> None:
        names = enumerate(self.columns.names)
        self._kept = [(at, name) for at, name in names if name is not None]
        kept = [name for _, name in self._kept]
        self._structured = structured_columns(kept, self.context.columns)

    def named_rows(self, groups: Iterable[list[tuple[int, list[str]]]]) -> Iterator[Row]:
        """Yield each row as a mapping; its line is where it starts. Empty lines hold no row."""
        names = [name for _, name in self._kept]
        # A column that is left out, or a cell too many, makes rows go the longer way.
        is_plain, width = len(names) == len(self.columns.names), len(self.columns.names)
        for group in groups:
            if is_plain and self._take(names, group):
                continue
            for line, cells in group:
                is_usual = is_plain and len(cells) == width and cells != self.header and any(cells)
                row: JsonObject | None
                row = dict(zip(names, cells, strict=True)) if is_usual else self._pick(cells, line)
                if row is not None and self._decode_lists(row, line):
                    yield Row(line, row)
                if self.context.is_unreadable:
                    return

    def _decode_lists(self, row: JsonObject, line: int) -> bool:
        """Decode the cells that hold lists; return False, with an error, if one is damaged."""
        try:
            for name in self._structured:
                row[name] = decode_cell(name, str(row[name]))
        except BadCell as bad:
            self.context.add_error("WrongType", bad.message, bad.fix, line)
            return False
        return True

    def _take(self, names: Sequence[str], group: Sequence[tuple[int, list[str]]]) -> bool:
        """Return whether the rows are plain records that the caller takes as a whole."""
        if self.take_rows is None:
            return False
        rows, width = [cells for _, cells in group], len(names)
        if not all(len(cells) == width for cells in rows) or self.header in rows:
            return False
        return self.take_rows(names, rows, [line for line, _ in group])

    def _pick(self, cells: list[str], line: int) -> JsonObject | None:
        """Return the cells of the named columns; None, with an error, if cells do not fit."""
        if not any(cells):
            if cells:
                message = "rows of empty cells, as spreadsheets write them, are left out"
                _add(self.context, "EmptyRows", message, "", line, "note")
            return None
        if cells == self.header:
            message = "the names of the columns come again, as where files are joined; left out"
            _add(self.context, "RepeatedHeader", message, "take the row out", line)
            return None
        width = len(self.columns.names)
        used = count_used_cells(cells)
        if used > width or len(cells) <= self._kept[-1][0]:
            message = f"{len(cells)} cells under {width} columns"
            fix = "put a cell that holds the delimiter into double quotes"
            self.context.add_error("WrongColumns", message, fix, line)
            return None
        for number in self.columns.empty:
            if number <= used and cells[number - 1].strip():
                message = f"a text in column {number}, which has no name"
                fix = f"give column {number} a name in the first row, or take the text out"
                self.context.add_error("WrongColumns", message, fix, line)
                return None
        return {name: cells[at] for at, name in self._kept}


def _row_groups(
    above: list[tuple[int, list[str]]], table: Reader
) -> Iterator[list[tuple[int, list[str]]]]:
    """Yield the rows, each with its line, in groups: the first alone, then many."""
    group, size, max_size = above, 0, 1
    line = table.line_num + 1
    try:
        for cells in table:
            group.append((line, cells))
            line = table.line_num + 1
            size += len(cells[0]) + len(cells[-1]) if cells else 0
            if len(group) >= max_size or size > GROUP_CHARACTERS:
                yield group
                group, size, max_size = [], 0, GROUP_ROWS
    except csv.Error:
        yield group  # what is before the fault
        raise
    if group:
        yield group
