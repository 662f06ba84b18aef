"""Write CSV for people, who open it in a spreadsheet: no text of it is taken for a formula.

CSV for training (csv_writer.py) holds the texts as they are, since a guard would be trained on.
Source of the rule: OWASP, "CSV Injection" (2025): a cell that begins with = + - @, a tab or a
carriage return, the full-width signs, and text that a separator of another locale cuts apart.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence

from cloudft.errors import UsageError

_FORMULA = re.compile(r"\s*[=+\-@\uff0b\uff0d\uff1d\uff20]|[\t\r\n]")


def is_formula(text: str) -> bool:
    """Return whether a spreadsheet may run a cell of this text."""
    return _FORMULA.match(text) is not None


def to_spreadsheet_csv(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """Return rows as CSV with every cell quoted and an apostrophe before what may be a formula.

    Raise UsageError for a text that this Python's csv module can't write.
    """
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, quoting=csv.QUOTE_ALL)
    writer.writeheader()
    for row in rows:
        try:
            writer.writerow({name: _guard(value) for name, value in row.items()})
        except csv.Error as error:  # Python 3.10 writes no NUL character
            raise UsageError(
                f"a text can't be written as CSV: {error}",
                fix="write JSON, or use Python 3.11 or newer.",
            ) from error
    return stream.getvalue()


def _guard(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and is_formula(value) else value
