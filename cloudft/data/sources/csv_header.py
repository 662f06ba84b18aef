"""Determine the columns of a CSV file: whether its first row names them, and which are empty.

That a first row is a record, not names, is judged by evidence: its values come again below it, or
they are sentences. A row with a usual name in it always names columns.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from cloudft.data.formats.key_roles import DESCRIPTIVE_KEYS, MEANINGFUL_KEYS
from cloudft.data.formats.proposals import FURTHER_COLUMNS, LABEL_NAMES, PROMPT_NAMES
from cloudft.data.sources.csv_dialect import count_used_cells

USUAL_NAMES = frozenset(
    {
        *DESCRIPTIVE_KEYS,
        *MEANINGFUL_KEYS,
        *PROMPT_NAMES,
        *LABEL_NAMES,
        *FURTHER_COLUMNS,
        *("messages", "conversations", "title", "body", "comment", "review", "note", "notes"),
    }
)
"""Names in lower case; a first row with one of them names columns."""
SENTENCE_CHARACTERS = 60
SENTENCE_WORDS = 8
WORDS_IN_ALL_CELLS = 3
MIN_TITLE_ROWS = 3
"""Rows with another number of cells from which a first row is taken for a title."""
_INTEGER = re.compile(r"\d+")
_NUMBERED = re.compile(r"column_([1-9]\d*)")


class BadHeader(Exception):
    """A first row that names no columns that can be used: the message and its remedy."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.message, self.fix = message, fix


@dataclass(frozen=True)
class Columns:
    """The columns of a file. `names` has None for a column that is left out.

    `has_header` is False if the first row is a record, `is_sure` if nothing but evidence says so.
    `empty` and `index` are the numbers, from 1, of columns without a name: those in which no cell
    has a text, and those that number the rows.
    """

    names: tuple[str | None, ...]
    has_header: bool = True
    is_sure: bool = True
    empty: tuple[int, ...] = ()
    index: tuple[int, ...] = ()


def determine_columns(rows: Sequence[Sequence[str]], wanted: Collection[str]) -> Columns:
    """Return the columns of a file that begins with these rows. Raises BadHeader.

    `wanted` are the columns that the user names. Naming them is the decision to leave out others,
    and naming column_1 says that the first row is a record.
    """
    first, below = rows[0], rows[1:]
    names = [name.strip() for name in first]
    width = _width(rows)
    numbered = tuple(f"column_{number}" for number in range(1, width + 1))
    is_named = any(name in names for name in wanted)
    if not is_named and wanted and all(map(_NUMBERED.fullmatch, wanted)):
        return Columns(numbered, has_header=False)
    _refuse_title(names, below)
    if not is_named and is_record(names, below):
        return Columns(numbered, has_header=False, is_sure=False)
    repeated = [name for name, count in Counter(filter(None, names)).items() if count > 1]
    if repeated:
        message = f"two columns have the name {repeated[0]!r}"
        raise BadHeader(message, "give each column a name of its own in the first row")
    return _name_columns(names, below, wanted)


def _width(rows: Sequence[Sequence[str]]) -> int:
    return max(map(count_used_cells, rows), default=0)


def _name_columns(
    names: Sequence[str], below: Sequence[Sequence[str]], wanted: Collection[str]
) -> Columns:
    empty, index = [], []
    for at, name in enumerate(names):
        if name:
            continue
        cells = [row[at].strip() for row in below if at < len(row) and any(row)]
        if not any(cells):
            empty.append(at + 1)
        elif all(map(_INTEGER.fullmatch, cells)) or any(name in names for name in wanted):
            index.append(at + 1)
        else:
            fix = f"give column {at + 1} a name in the first row"
            raise BadHeader("a column without a name", fix)
    return Columns(tuple(name or None for name in names), empty=tuple(empty), index=tuple(index))


def _refuse_title(names: Sequence[str], below: Sequence[Sequence[str]]) -> None:
    """Raise BadHeader where rows are wider than the first one, which has one text: a title."""
    widths = Counter(width for row in below if (width := count_used_cells(row)))
    if not widths or len([name for name in names if name]) != 1:
        return
    width, count = widths.most_common(1)[0]
    if width > 1 and count >= MIN_TITLE_ROWS and len(names) < width:
        message = f"the first line has one cell, and {count} of the next rows have {width}"
        raise BadHeader(message, "take out the lines above the names of the columns")


def is_record(names: Sequence[str], below: Sequence[Sequence[str]]) -> bool:
    """Return whether a first row is a record like those below it."""
    used = [name for name in names if name]
    if not used or any(name.lower() in USUAL_NAMES for name in used):
        return False
    if used == [str(number) for number in range(len(used))]:
        return False  # pandas names columns 0, 1, ... where they have no names
    below = [row for row in below if [cell.strip() for cell in row] != list(names)]
    for at, name in enumerate(names):
        if name and any(at < len(row) and row[at].strip() == name for row in below):
            return True
    if any(_is_sentence(name) for name in used):
        return True
    return bool(below) and all(len(name.split()) >= WORDS_IN_ALL_CELLS for name in used)


def _is_sentence(name: str) -> bool:
    is_long = len(name) > SENTENCE_CHARACTERS or len(name.split()) >= SENTENCE_WORDS
    return is_long or "\n" in name
