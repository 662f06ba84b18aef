"""Say in words what is wrong with a line that is no JSON, or that repeats a key, and the remedy."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from cloudft.data.sources.file_start import FIX_COMMAND
from cloudft.data.sources.json_values import BrokenValues
from cloudft.data.sources.loose_json import RepeatedKey, parse_loosely, refuse_repeated

if TYPE_CHECKING:
    from orjson import JSONDecodeError

CUT_OFF = "is the file cut off? write or download it again"

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


Diagnosis = tuple[str, str, str, int]
"""Code, message, remedy and line of an error."""


def diagnose_json_error(
    raw: bytes, error: JSONDecodeError, line: int, column: int, *, explain: bool = True
) -> Diagnosis:
    """Return what is wrong with a value (UTF-8) that orjson could not parse.

    It begins in that line, `column` bytes after the line's start. With `explain` the remedy says
    whether `check --fix` repairs it.
    """
    code, fix = _classify(raw, error)
    if explain and is_repairable(raw):
        fix = f"{FIX_COMMAND} writes a repaired copy; by hand: {fix}"
    shown = error.colno + (column if error.lineno == 1 else 0)
    message = f"not JSON: {error.msg} (column {shown})"
    return code, message, fix, line + error.lineno - 1


def is_repairable(raw: bytes) -> bool:
    """Return whether `check --fix` can read a value as records."""
    try:
        values = parse_loosely(raw.decode("utf-8"))
    except RepeatedKey:
        return False
    return bool(values) and all(isinstance(value, (dict, list)) for value in values or ())


def is_only_value_error(raw: bytes) -> bool:
    """Return whether a value is whole, and only something within it is wrong, such as a NaN."""
    try:
        json.loads(raw, strict=False)
    except (ValueError, RecursionError):
        return False
    return True


def diagnose_broken_values(broken: BrokenValues) -> Diagnosis:
    """Return why a file's values can't be separated."""
    import orjson

    line, column = broken.line, broken.column + 1
    where = f"(column {column})"
    if broken.reason == "comma":
        fix = f"{FIX_COMMAND} writes a repaired copy; by hand: add it"
        return "MissingComma", f"no comma between two records {where}", fix, line
    if broken.reason == "trailing comma":
        fix = f"{FIX_COMMAND} writes a repaired copy; by hand: remove it"
        return "TrailingComma", f"a comma after the last record {where}", fix, line
    if broken.rest:
        # A file that is cut off may be so within a character.
        rest = broken.rest.decode("utf-8", "replace").encode("utf-8")
        try:
            orjson.loads(rest)
        except orjson.JSONDecodeError as error:
            if broken.reason == "too long" and "end of data" in error.msg:
                message = f"a record of more than {len(broken.rest) // 1_000_000} MB"
                return "RecordTooLong", message, "split it, or take it out", line
            code, fix = _classify(rest, error)
            line, column = (
                line + error.lineno - 1,
                error.colno + (broken.column if error.lineno == 1 else 0),
            )
            if code == "Truncated":
                fix = f"{CUT_OFF}; {FIX_COMMAND} writes a copy of the records before"
            return code, f"not JSON: {error.msg} (column {column})", fix, line
    message = f"the file ends before the array does {where}"
    return "Truncated", message, f"{CUT_OFF}; {FIX_COMMAND} writes a copy of what is there", line


def _classify(raw: bytes, error: JSONDecodeError) -> tuple[str, str]:
    for part, code, fix in ORJSON_ERRORS:
        if part in error.msg:
            return code, fix
    rest = raw.decode("utf-8")[error.pos :]
    if "after document" in error.msg and rest.strip() == ",":
        return "TrailingComma", "remove the comma at the end of the line"
    if rest.startswith("'") or raw.startswith(b"{'"):
        return "SingleQuotes", "use double quotes: JSON has no others"
    # orjson stops at the letter after the sign in "-Infinity": look one byte before as well.
    near = raw[max(0, len(raw) - len(rest.encode()) - 1) :]
    if NOT_FINITE.match(near) or NOT_FINITE.match(near[1:]):
        return "NotFinite", "JSON has no NaN and no Infinity: leave the field out"
    return "BadJson", "correct the line"


def find_repeated_key(raw: bytes, value: object) -> str | None:
    """Return a key that is repeated in one object of the value; parsers keep its last one alone.

    Counting colons first is cheap: only a value with more of them than keys is parsed again.
    """
    if len(COLON.findall(raw)) <= _count_keys(value):
        return None
    try:
        json.loads(raw, object_pairs_hook=refuse_repeated)
    except RepeatedKey as repeated:
        return repeated.key
    return None


def _count_keys(value: object) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(_count_keys, value.values()))
    return sum(map(_count_keys, value)) if isinstance(value, list) else 0
