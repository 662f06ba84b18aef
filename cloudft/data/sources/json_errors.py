"""Say in words what is wrong with a line that is no JSON, or that repeats a key, and the remedy."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

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
"""A part of orjson's message, our code, the remedy."""
NOT_FINITE = re.compile(rb"[+-]?(?:NaN|Infinity|inf\b)")
COLON = re.compile(rb'"\s*:')


def diagnose_json_error(raw: bytes, error: JSONDecodeError) -> tuple[str, str, str]:
    """Return code, message and remedy for a line (UTF-8) that orjson could not parse."""
    code, fix = _classify(raw, error)
    return code, f"not JSON: {error.msg} (column {error.colno})", fix


def _classify(raw: bytes, error: JSONDecodeError) -> tuple[str, str]:
    for part, code, fix in ORJSON_ERRORS:
        if part in error.msg:
            return code, fix
    rest = raw.decode("utf-8")[error.pos :]
    if "after document" in error.msg:
        if rest.lstrip().startswith("{"):
            return "SeveralObjects", "put each record on a line of its own"
        if rest.strip() == ",":
            return "TrailingComma", "remove the comma at the end of the line"
    if rest.startswith("'") or raw.startswith(b"{'"):
        return "SingleQuotes", "use double quotes: JSON has no others"
    # orjson stops at the letter after the sign in "-Infinity": look one byte before as well.
    near = raw[max(0, len(raw) - len(rest.encode()) - 1) :]
    if NOT_FINITE.match(near) or NOT_FINITE.match(near[1:]):
        return "NotFinite", "JSON has no NaN and no Infinity: leave the field out"
    return "BadJson", "correct the line"


def find_repeated_key(raw: bytes, value: Mapping[str, object]) -> str | None:
    """Return a key that is repeated in one object of the line; parsers keep its last value alone.

    Counting colons first is cheap: only a line with more of them than keys is parsed again.
    """
    if len(COLON.findall(raw)) <= _count_keys(value):
        return None
    try:
        json.loads(raw, object_pairs_hook=_refuse_repeated)
    except _RepeatedKey as repeated:
        return repeated.key
    return None


def _count_keys(value: object) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(_count_keys, value.values()))
    return sum(map(_count_keys, value)) if isinstance(value, list) else 0


class _RepeatedKey(Exception):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _refuse_repeated(members: list[tuple[str, object]]) -> dict[str, object]:
    seen: dict[str, object] = {}
    for key, value in members:
        if key in seen:
            raise _RepeatedKey(key)
        seen[key] = value
    return seen
