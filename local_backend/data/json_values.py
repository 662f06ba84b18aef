"""Decode JSON that a model wrote: it may be anything."""

from __future__ import annotations

import json
import math
from typing import Any

MAX_JSON_DEPTH = 100
"""Levels of nesting that a value may have: as many as in a request (cloudft/web/json_depth.py)."""


def decode_json_at(text: str, start: int) -> tuple[Any, int]:
    """Return the JSON value that begins at a place of a text, and where it ends.

    Raise ValueError for what is none, or can't be passed on: nested too deeply, with a number that
    JSON has not (NaN), or with half a surrogate pair, which no UTF-8 has.
    """
    try:
        value, end = json.JSONDecoder().raw_decode(text, start)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    _require_passable(value)
    return value, end


def _require_passable(value: Any) -> None:
    level = [value]
    for _ in range(MAX_JSON_DEPTH + 1):
        for one in level:
            if isinstance(one, str):
                one.encode()  # UnicodeEncodeError is a ValueError
            elif isinstance(one, float) and not math.isfinite(one):
                raise ValueError("not a number of JSON")
        level = [inner for one in level for inner in _inner_values(one)]
        if not level:
            return
    raise ValueError("nested too deeply")


def _inner_values(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, list) else []
