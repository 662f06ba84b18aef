"""JSON that is a text inside of JSON, as arguments of tool calls are."""

from __future__ import annotations

import json
from typing import Any

from cloudft.web.json_depth import is_within_depth


def load_json_text(text: str) -> Any:
    """Return the value of a text that a model wrote or a client sent.

    Raise ValueError for what is no JSON, is nested too deeply, or has half a surrogate pair, which
    no tokenizer takes.
    """
    if not is_within_depth(text.encode()):
        raise ValueError("nested too deeply")
    value = json.loads(text, parse_constant=_refuse_constant)
    json.dumps(value, ensure_ascii=False).encode()
    return value


def _refuse_constant(name: str) -> None:
    """Raise ValueError for NaN and Infinity, which Python's decoder takes."""
    raise ValueError(f"{name} is no JSON")
