"""What is wrong with a line that is no JSON, or that has a key twice: in words, with a remedy."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orjson import JSONDecodeError

ORJSON_ERRORS = (
    ("trailing comma", "TrailingComma", "remove the comma before the closing bracket"),
    ("control character", "ControlCharacter", r"escape it: a tab is \t, a line break \n"),
    ("surrogate in string", "LoneSurrogate", "write the character itself, or both of its halves"),
    ("end of data", "Truncated", "put a whole record on the line; is the file cut off?"),
    ("depth limit", "TooDeep", "take the record out"),
    ("infinity when parsed", "NotFinite", "JSON has no numbers of that size"),
)
"""orjson's words, our code, the remedy."""
NOT_FINITE = re.compile(rb"[+-]?(?:NaN|Infinity|inf\b)")
COLON = re.compile(rb'"\s*:')


def diagnose_json_error(raw: bytes, error: JSONDecodeError) -> tuple[str, str, str]:
    """Code, message and remedy for a line (UTF-8) on which orjson gave up."""
    code, fix = _kind(raw, error)
    return code, f"not JSON: {error.msg} (column {error.colno})", fix


def _kind(raw: bytes, error: JSONDecodeError) -> tuple[str, str]:
    for words, code, fix in ORJSON_ERRORS:
        if words in error.msg:
            return code, fix
    rest = raw.decode("utf-8")[error.pos :]
    if "after document" in error.msg:
        if rest.lstrip().startswith("{"):
            return "SeveralObjects", "put each record on a line of its own"
        if rest.strip() == ",":
            return "TrailingComma", "remove the comma at the end of the line"
    if rest.startswith("'") or raw.startswith(b"{'"):
        return "SingleQuotes", "use double quotes: JSON has no others"
    near = raw[max(0, len(raw) - len(rest.encode()) - 1) :]
    if NOT_FINITE.match(near) or NOT_FINITE.match(near[1:]):
        return "NotFinite", "JSON has no NaN and no Infinity: leave the field out"
    return "BadJson", "correct the line"


def find_repeated_key(raw: bytes, value: Mapping[str, Any]) -> str | None:
    """A key that stands twice in one object of the line, of which parsers keep the last alone."""
    if len(COLON.findall(raw)) <= _keys_in(value):
        return None
    try:
        json.loads(raw, object_pairs_hook=_once)
    except _Twice as twice:
        return twice.key
    return None


def _keys_in(value: object) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(_keys_in, value.values()))
    return sum(map(_keys_in, value)) if isinstance(value, list) else 0


class _Twice(Exception):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in members:
        if key in found:
            raise _Twice(key)
        found[key] = value
    return found
