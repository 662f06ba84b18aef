"""Turn a table that is written by columns into records: what pandas and `Dataset.to_dict` write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cloudft.data.formats.record import JsonObject


def rows_of_table(table: Mapping[str, object]) -> Iterator[JsonObject]:
    """Yield the rows of a table by columns (objects or lists), split, or by index.

    Raises ValueError if it is none of these.
    """
    names, cells = table.get("columns"), table.get("data")
    if isinstance(names, list) and isinstance(cells, list) and "index" in table:
        for row in cells:
            if not isinstance(row, list) or len(row) != len(names):
                raise ValueError("rows of different lengths")
            yield {str(name): cell for name, cell in zip(names, row, strict=True)}
        return
    if all(str(key).isdigit() and isinstance(row, dict) for key, row in table.items()):
        for row in table.values():
            assert isinstance(row, dict)
            yield row
        return
    columns = {name: _cells(column) for name, column in table.items()}
    index = dict.fromkeys(key for column in columns.values() for key in column)
    for key in index:
        yield {name: column[key] for name, column in columns.items() if key in column}


def _cells(column: object) -> dict[str, object]:
    """Return a column's cells by their row."""
    if isinstance(column, list):
        return {str(row): cell for row, cell in enumerate(column)}
    if isinstance(column, dict):
        return column
    raise ValueError("a column that is neither a list nor an object")
