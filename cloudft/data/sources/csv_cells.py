"""Decode cells of CSV that hold lists: chats and tools as JSON, or as Python prints them."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping

STRUCTURED = frozenset(
    {"messages", "conversations", "conversation", "contents", "history", "tools", "functions"}
)
"""Names of columns that hold a list in every format; other cells are text, whatever they hold."""


class BadCell(Exception):
    """A cell that held a list, and holds what cannot be read: the message and its remedy."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.message, self.fix = message, fix


def structured_columns(names: Iterable[str], columns: Mapping[str, str]) -> list[str]:
    """Return the columns that hold lists, by their own names or by those in `data.columns`."""
    named = {column for key, column in columns.items() if key in STRUCTURED}
    return [name for name in names if name.strip().lower() in STRUCTURED or name in named]


def decode_cell(name: str, cell: str) -> object:
    """Return the list that a cell holds; the text itself if it is none. Raises BadCell."""
    import orjson

    text = cell.strip()
    if not text.startswith(("[", "{")):
        return cell
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        message = f"{name[:40]!r} is a list as numpy prints it, without commas: parts may be lost"
        fix = 'write the records as JSONL: `dataset.to_json("FILE.jsonl")`'
        if "} {" in text or "}\n {" in text:
            raise BadCell(message, fix) from None
        return cell
    return value if isinstance(value, (list, dict)) else cell
