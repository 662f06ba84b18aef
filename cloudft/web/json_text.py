"""JSON that is a text inside of JSON, as arguments of tool calls are."""

from __future__ import annotations

import json
from typing import Any

from cloudft.web.json_depth import is_within_depth


def load_json_text(text: str) -> Any:
    """Return the value of a text. Raise ValueError for what is no JSON, or nested too deeply."""
    if not is_within_depth(text.encode("utf-8", "surrogatepass")):
        raise ValueError("nested too deeply")
    return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> None:
    """Raise ValueError for NaN and Infinity, which Python's decoder takes."""
    raise ValueError(f"{name} is no JSON")


def dump_json_text(value: Any) -> str:
    """Return a value as a JSON text that UTF-8 can encode: half a surrogate pair is escaped."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value)
    return text
