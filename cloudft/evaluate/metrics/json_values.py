"""Compare JSON answers as values: 100 equals 100.0 and 1e2, `true` is not 1, text stays text."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterator
from decimal import Decimal

JsonValue = object
"""A parsed JSON value. Every number is a Decimal, so that none is rounded."""
Leaf = tuple[str, Hashable]
"""The type and value of a text, number, truth value or null, or an empty object or array."""
Path = tuple[tuple[str, str], ...]
"""The keys and array marks that lead to a leaf."""
MAX_DEPTH = 100
"""Objects and arrays within each other; an answer with more is not read."""


def parse_json_answer(text: str) -> JsonValue | None:
    """Return the JSON object or array in an answer, bare or in a code fence; None without one."""
    bare = re.sub(r"^```\w*\n(.*?)\n?```$", r"\1", text.strip(), flags=re.DOTALL)
    try:
        value: JsonValue = json.loads(
            bare, parse_int=Decimal, parse_float=Decimal, parse_constant=_refuse_constant
        )
    except (ValueError, ArithmeticError, RecursionError):
        return None
    return value if isinstance(value, (dict, list)) and _is_readable(value) else None


def _is_readable(value: JsonValue) -> bool:
    """Return whether a value is nested no deeper than `MAX_DEPTH`."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [x for outer in level if isinstance(outer, (dict, list)) for x in _inner(outer)]
    return not level


def _inner(value: dict[str, JsonValue] | list[JsonValue]) -> Iterator[JsonValue]:
    yield from value.values() if isinstance(value, dict) else value


def _refuse_constant(name: str) -> object:
    """Raise ValueError: NaN and Infinity, which Python's parser takes, are no JSON (RFC 8259)."""
    raise ValueError(f"{name} is not JSON")


def is_equal(expected: JsonValue | None, actual: JsonValue | None) -> bool:
    """Return whether two answers are the same JSON value; one that is not JSON (None) is none.

    The order of an object's keys does not matter, that of an array does.
    """
    return expected is not None and actual is not None and _freeze(expected) == _freeze(actual)


def freeze_answer(text: str) -> Hashable:
    """Return a hashable form of a JSON answer, equal for equal values; the text if it is none."""
    value = parse_json_answer(text)
    return text.strip() if value is None else _freeze(value)


def _freeze(value: JsonValue) -> Hashable:
    if isinstance(value, dict):
        return "object", frozenset((_normalize(k), _freeze(v)) for k, v in value.items())
    if isinstance(value, list):
        return "array", tuple(map(_freeze, value))
    return _leaf(value)


def _leaf(value: JsonValue) -> Leaf:
    """Return a leaf with its type: to Python, `True == 1`."""
    if isinstance(value, str):
        return "text", _normalize(value)
    return type(value).__name__, None if isinstance(value, (dict, list)) else value


def _normalize(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _iter_leaves(value: JsonValue, path: Path) -> Iterator[tuple[Path, Leaf]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _iter_leaves(inner, (*path, ("key", _normalize(key))))
    elif isinstance(value, list) and value:
        for inner in value:
            yield from _iter_leaves(inner, (*path, ("item", "")))
    else:
        yield path, _leaf(value)


def count_matching_fields(
    expected: JsonValue | None, actual: JsonValue | None
) -> tuple[int, int, int]:
    """Return the numbers of fields in both values, in `expected` and in `actual`.

    A field is a leaf with its path; the order of an array is ignored. An answer that is not JSON
    (None) has no fields.
    """
    left, right = (
        Counter[tuple[Path, Leaf]]() if value is None else Counter(_iter_leaves(value, ()))
        for value in (expected, actual)
    )
    return sum((left & right).values()), sum(left.values()), sum(right.values())
