"""Determine how a CSV file separates and quotes its cells, from its first lines.

The name says comma or tab; spreadsheets write semicolons where the comma is the decimal mark, and
databases vertical bars. A delimiter is taken if it cuts the rows into as many cells as the first
row, and the usual one if that does so, too.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _csv import Reader

DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a vertical bar"}
"""The delimiters that are tried, by their names."""
SAMPLE_LINES = 200
SAMPLE_CHARACTERS = 64 * 1024
MIN_SHARE = 0.5
"""Share of rows that must have as many cells as the first one, for another than the usual
delimiter."""
_SPACED_QUOTES = re.compile(r' +".*"', re.DOTALL)
_HINT = re.compile(r'"?sep=(.)"?\s*')
"""Excel's own first line that names the delimiter."""


@dataclass(frozen=True)
class CsvDialect:
    """How cells are separated. `has_hint` if the first line says so, and is no row."""

    delimiter: str
    has_quotes: bool = True
    skips_spaces: bool = False
    has_hint: bool = False

    def reader(self, lines: Iterable[str]) -> Reader:
        """Return the rows of these lines; csv.Error for quotes that do not match."""
        return csv.reader(
            lines,
            delimiter=self.delimiter,
            quoting=csv.QUOTE_MINIMAL if self.has_quotes else csv.QUOTE_NONE,
            skipinitialspace=self.skips_spaces,
            strict=True,
        )

    def describe(self, usual: str) -> str:
        """Return what differs from a CSV file with the usual delimiter; "" if nothing does."""
        differences = []
        if self.delimiter != usual:
            name = DELIMITERS.get(self.delimiter, repr(self.delimiter))
            differences.append(f"{name} between cells")
        if not self.has_quotes:
            differences.append("quotes that are part of the texts")
        if self.skips_spaces:
            differences.append("spaces before quoted cells")
        return " and ".join(differences)


@dataclass(frozen=True)
class _Attempt:
    """The first rows as a dialect reads them. `share` of them have as many cells as the first."""

    dialect: CsvDialect
    rows: list[list[str]]
    share: float

    @property
    def width(self) -> int:
        return len(self.rows[0]) if self.rows else 0


def sample_lines(lines: Sequence[str]) -> list[str]:
    """Return the first lines, as many as are needed to determine a dialect."""
    count = total = 0
    for line in lines[:SAMPLE_LINES]:
        total += len(line)
        if count and total > SAMPLE_CHARACTERS:
            break
        count += 1
    return list(lines[:count])


def determine_dialect(lines: Sequence[str], usual: str) -> tuple[CsvDialect, list[list[str]]]:
    """Return the dialect of a file that begins with these lines, and their rows.

    `usual` is the delimiter that the file's name stands for.
    """
    hint = _HINT.fullmatch(lines[0]) if lines else None
    if hint:
        dialect = CsvDialect(hint[1], has_hint=True)
        return dialect, _try(dialect, lines[1:]).rows
    best = _try(CsvDialect(usual), lines)
    if best.share == 1 and best.width > 1 and not _keeps_quotes(best.rows):
        return best.dialect, best.rows
    for dialect in _candidates(lines, usual):
        attempt = _try(dialect, lines)
        is_possible = attempt.width > 1 and attempt.share >= MIN_SHARE
        is_better = attempt.share > best.share or best.width < 2
        # ` "text"` is the text in quotes for a reader that takes the space for a part of it.
        is_same = dialect.skips_spaces and attempt.share == best.share
        if is_possible and (is_better or (is_same and _keeps_quotes(best.rows))):
            best = attempt
    return best.dialect, best.rows


def _keeps_quotes(rows: Iterable[Iterable[str]]) -> bool:
    """Return whether a cell is quoted after a space, so that its quotes were taken for text."""
    return any(_SPACED_QUOTES.fullmatch(cell) for row in rows for cell in row if cell[:1] == " ")


def _candidates(lines: Sequence[str], usual: str) -> Iterator[CsvDialect]:
    """Yield the dialects that are possible, the more usual ones first."""
    delimiters = [usual, *(d for d in DELIMITERS if d != usual and d in lines[0])] if lines else []
    for delimiter in delimiters:
        if delimiter != usual:
            yield CsvDialect(delimiter)
        if any(f'{delimiter} "' in line for line in lines):
            yield CsvDialect(delimiter, skips_spaces=True)
        # Texts with commas need quotes; with tabs and bars they need none, so writers omit them.
        if delimiter in "\t|" and any('"' in line for line in lines):
            yield CsvDialect(delimiter, has_quotes=False)


def _try(dialect: CsvDialect, lines: Sequence[str]) -> _Attempt:
    rows: list[list[str]] = []
    failed = 0
    table = dialect.reader(iter(lines))
    try:
        rows.extend(row for row in table if any(row))
    except csv.Error as error:
        # The sample may end within a quoted cell.
        failed = 0 if "end of data" in str(error) and len(rows) > 1 else 1
    if not rows:
        return _Attempt(dialect, [], 0)
    width = count_used_cells(rows[0])
    same = sum(count_used_cells(row) <= width <= len(row) for row in rows)
    return _Attempt(dialect, rows, same / (len(rows) + failed))


def count_used_cells(row: Sequence[str]) -> int:
    """Return how many cells a row has, without empty ones at its end."""
    count = len(row)
    while count and not row[count - 1].strip():
        count -= 1
    return count
