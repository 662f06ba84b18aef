"""Detect how a JSON file holds its records, by its first bytes.

One record a line is JSONL. People also have one array, objects one after another (indented, or
several on a line), a list under a key of one object, and tables written column by column.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeGuard

from cloudft.data.formats.chat_messages import CONTENT_KEYS
from cloudft.data.formats.chat_roles import ROLE_KEYS
from cloudft.data.formats.key_roles import is_descriptive
from cloudft.data.formats.recognizer import match_format
from cloudft.data.formats.record import JsonObject
from cloudft.data.sources.json_scan import find_value_end, skip_space

LIST_NAMES = frozenset(
    [
        *("data", "dataset", "rows", "records", "examples", "samples", "items", "instances"),
        *("entries", "results", "questions", "train", "training", "training_data", "train_data"),
        *("validation", "valid", "val", "dev", "test", "eval"),
    ]
)
"""Names, in lower case, under which tools keep the list of a file's records."""
_KEY = re.compile(rb'\s*("(?:[^"\\]|\\.)*")\s*:\s*')
_COLUMN = re.compile(rb'\{\s*"0"\s*:')
_INDEX_TABLE = re.compile(rb'\{\s*"0"\s*:\s*\{')
_SPLIT_TABLE = re.compile(rb'\{\s*"columns"\s*:\s*\[[^\]]*\]\s*,\s*"index"\s*:\s*\[')
Kind = Literal["lines", "array", "sequence", "table"]


@dataclass(frozen=True)
class Layout:
    """How a file holds its records: one a line, in an array, one after another, or by columns.

    `start` is where the first one begins in the bytes that were read. The array may be the value of
    `key` in an object, whose keys before it are `outer`; `row_key` is where its elements hold the
    record (`row` in an answer of Hugging Face's datasets-server).
    """

    kind: Kind
    start: int = 0
    key: str = ""
    outer: JsonObject = field(default_factory=dict)
    row_key: str = ""


def detect_layout(start: bytes, *, is_whole: bool) -> Layout:
    """Return the layout of a file that begins with `start`, without a byte order mark.

    `is_whole` says that `start` is all of it.
    """
    at = skip_space(start, 0)
    if start[at : at + 1] == b"[":
        return _layout_of_array(start, at)
    if start[at : at + 1] == b"{":
        return _layout_of_object(start, at, is_whole=is_whole)
    return Layout("lines")


def is_message(value: object) -> bool:
    """Return whether a value is a chat's message: an object with a role and a content."""
    return (
        isinstance(value, dict)
        and any(isinstance(value.get(key), str) for key in ROLE_KEYS)
        and any(key in value for key in (*CONTENT_KEYS, "tool_calls", "function_call"))
    )


def is_message_list(value: object) -> bool:
    """Return whether a value is a chat's messages alone: a list that begins with one."""
    return isinstance(value, list) and bool(value) and is_message(value[0])


def first_record(start: bytes) -> JsonObject | None:
    """Return the first record of a file that begins with `start`; None if it is not JSON.

    It is an object, alone or in an array, or a list of messages.
    """
    at = skip_space(start, 0)
    if start[at : at + 1] == b"[":
        element = _first_element(start, at + 1)
        if isinstance(element, list):
            element = {"messages": element}
        elif is_message(element):
            element = {"messages": [element]}
        return element if isinstance(element, dict) else None
    if start[at : at + 1] != b"{":
        return None
    end = find_value_end(start, at)
    value = None if end is None else _parse(start[at:end])
    return value if isinstance(value, dict) else None


def _layout_of_array(start: bytes, at: int) -> Layout:
    """Return the layout of a file that begins with a bracket.

    It is one array of records, or each array is a record: a list of messages.
    """
    end = find_value_end(start, at)
    after = len(start) if end is None else skip_space(start, end)
    following = start[after : after + 1]
    if following not in (b"", b"[", b"{"):
        return Layout("array", at + 1)
    if not following and not is_message(_first_element(start, at + 1)):
        return Layout("array", at + 1)
    spans_lines = b"\n" in start[at:end]
    ends_line = not following or b"\n" in start[end:after]
    return Layout("lines" if ends_line and not spans_lines else "sequence")


def _first_element(start: bytes, at: int) -> object:
    """Return the first element of an array that begins before `at`; None if it is not whole."""
    at = skip_space(start, at)
    if start[at : at + 1] not in (b"{", b"["):
        return None
    end = find_value_end(start, at)
    return None if end is None else _parse(start[at:end])


def _parse(raw: bytes) -> object:
    """Return the value of some JSON, None if it is none."""
    import orjson

    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None


def _layout_of_object(start: bytes, at: int, *, is_whole: bool) -> Layout:
    """Return the layout of a file that begins with an object."""
    if _begins_table(start, at):
        return Layout("table")
    end = find_value_end(start, at)
    is_only_value = is_whole and end is not None and skip_space(start, end) == len(start)
    if is_only_value and is_table(_parse(start[at:end])):
        return Layout("table")
    if end is None or is_only_value:
        layout = _find_wrapped_list(start, at)
        if layout is not None:
            return layout
    newline = start.find(b"\n", at)
    first_line = start[at : newline if newline >= 0 else len(start)].strip()
    if newline < 0 or (end is not None and end <= newline):
        # The first object is one line, or all that was read of it.
        same_line = start[end : newline if newline >= 0 else len(start)].strip() if end else b""
        return Layout("sequence" if same_line.startswith(b"{") else "lines")
    is_valid = end is not None and isinstance(_parse(start[at:end]), dict)
    # An object that is broken, or not complete, counts as indented where its first line ends
    # between two of its members: a text that is cut off does not.
    return Layout("sequence" if is_valid or first_line[-1:] in b"{[,:" else "lines")


def _begins_table(start: bytes, at: int) -> bool:
    """Return whether an object is a table as pandas writes it: by columns, split, or by index."""
    if _SPLIT_TABLE.match(start, at) or _INDEX_TABLE.match(start, at):
        return True
    columns = [value_at for _, value_at, _ in iter_members(start, at + 1)]
    return bool(columns) and all(_COLUMN.match(start, value_at) for value_at in columns)


def is_table(value: object) -> TypeGuard[JsonObject]:
    """Return whether a file's first value is a table, and not a record.

    It has an object a column, as pandas writes it, or a list a column, as `to_dict` gives it. The
    lists have one length, and at least one holds texts: token ids are no table.
    """
    if not isinstance(value, dict) or not value:
        return False
    columns = list(value.values())
    if {"columns", "index", "data"} <= value.keys() or all(
        isinstance(column, dict) and "0" in column for column in columns
    ):
        return True
    if all(key.isdigit() and isinstance(row, dict) for key, row in value.items()):
        return True
    if match_format(value) is not None:
        return False
    if not all(isinstance(column, list) and len(column) > 1 for column in columns):
        return False
    has_texts = any(all(isinstance(cell, str) for cell in column) for column in columns)
    return has_texts and len(set(map(len, columns))) == 1


def _find_wrapped_list(start: bytes, at: int) -> Layout | None:
    """Return the layout of an object that holds the records in a list; None for a record."""
    outer: JsonObject = {}
    for key, value_at, value in iter_members(start, at + 1):
        first = skip_space(start, value_at + 1)
        is_list = start[value_at : value_at + 1] == b"[" and start[first : first + 1] == b"{"
        element = _first_element(start, first) if is_list else None
        is_usual = key.strip().lower() in LIST_NAMES
        if is_list and element is None and is_usual:  # it is longer than what was read
            return Layout("array", value_at + 1, key, outer)
        if not isinstance(element, dict) or "feature_idx" in element:
            outer[key] = value
            continue
        if is_message(element) or (outer and match_format({**outer, key: [element]})):
            return None
        row = element.get("row")
        row_key = "row" if "row_idx" in element and isinstance(row, dict) else ""
        if not is_usual and not row_key and not _may_be_records(element, outer):
            return None
        return Layout("array", value_at + 1, key, outer, row_key)
    return None


def _may_be_records(element: JsonObject, outer: JsonObject) -> bool:
    """Return whether a list under an unusual name holds records, by its first element."""
    format = match_format(element)
    is_record = format is not None and format.is_labeled
    return is_record and all(is_descriptive(key) for key in outer)


def find_next_list(tail: bytes) -> tuple[str, int] | None:
    """Return key and start of the next list of objects behind another one; None if there is none.

    `tail` begins behind the bracket that closes that one.
    """
    at = skip_space(tail, 0)
    if tail[at : at + 1] != b",":
        return None
    for key, value_at, _ in iter_members(tail, at + 1):
        first = skip_space(tail, value_at + 1)
        if tail[value_at : value_at + 1] == b"[" and tail[first : first + 1] == b"{":
            return key, value_at + 1
    return None


def iter_members(raw: bytes, at: int) -> Iterator[tuple[str, int, object]]:
    """Yield key, position and value of an object's members, as far as they are there.

    `at` is behind the opening bracket. The last value may not be complete: it is None then.
    """
    while (match := _KEY.match(raw, at)) is not None:
        key, value_at = _parse(match[1]), match.end()
        if value_at >= len(raw) or not isinstance(key, str):
            return
        end = find_value_end(raw, value_at)
        yield key, value_at, None if end is None else _parse(raw[value_at:end])
        if end is None:
            return
        at = skip_space(raw, end)
        if raw[at : at + 1] != b",":
            return
        at += 1
