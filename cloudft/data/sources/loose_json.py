"""Parse JSON that is loosely written, where there is one way to read it; contents stay as they are.

Accepted are trailing commas, several values with or without commas between, control characters
within texts, Python's literals (single quotes, None, True), and halves of surrogate pairs, which
become U+FFFD.
"""

from __future__ import annotations

import ast
import json
import math
import re
import warnings

_STRING_OR_COMMA = re.compile(r'"(?:[^"\\]|\\.)*"|,(?=\s*[}\]])', re.DOTALL)
_BETWEEN = re.compile(r"[ \t\r\n,]*")


class RepeatedKey(Exception):
    """An object has a key twice; a parser would keep its last value without a warning."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def parse_loosely(text: str) -> list[object] | None:
    """Return the values in a text, one or several; None if they can't be read in one way only.

    Raises RepeatedKey.
    """
    try:
        for candidate in (text, _STRING_OR_COMMA.sub(_without_comma, text)):
            values = _parse_several(candidate.strip().rstrip(","))
            if values:
                return [_to_json_value(value) for value in values]
        value = _parse_python(text.strip().rstrip(","))
        return [_to_json_value(value)] if isinstance(value, dict) else None
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return None


def _without_comma(match: re.Match[str]) -> str:
    return "" if match[0] == "," else match[0]


def refuse_repeated(members: list[tuple[str, object]]) -> dict[str, object]:
    """Return an object of its members, for `object_pairs_hook`. Raises RepeatedKey."""
    seen: dict[str, object] = {}
    for key, value in members:
        if key in seen:
            raise RepeatedKey(key)
        seen[key] = value
    return seen


def _refuse_constant(name: str) -> object:
    raise ValueError(name)


_DECODER = json.JSONDecoder(
    strict=False, object_pairs_hook=refuse_repeated, parse_constant=_refuse_constant
)


def _parse_several(text: str) -> list[object] | None:
    """Return the JSON values in a text, None if there is anything else in it."""
    at, values = 0, []
    while at < len(text):
        try:
            value, at = _DECODER.raw_decode(text, at)
        except ValueError:
            return None
        values.append(value)
        separator = _BETWEEN.match(text, at)
        assert separator is not None  # it matches the empty text
        at = separator.end()
    return values


def _parse_python(text: str) -> object:
    """Return the value of a Python literal. Raises RepeatedKey, and what ast.literal_eval does."""
    with warnings.catch_warnings():
        # An escape that Python does not know is a warning: it can be meant in two ways.
        warnings.simplefilter("error")
        tree = ast.parse(text, mode="eval")
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
            repeated = [key for key in keys if keys.count(key) > 1]
            if repeated:
                raise RepeatedKey(str(repeated[0]))
    return ast.literal_eval(tree)


def _to_json_value(value: object) -> object:
    """Return the value with U+FFFD for halves of characters. Raises ValueError if it is no JSON."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {_to_json_value(key): _to_json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_json_value(item) for item in value]
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise ValueError("no JSON value")
