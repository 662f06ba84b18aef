"""Remove what an exception's text quotes of a sample: training texts never reach a log."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

REDACTED = "[...]"
WINDOW = 8
"""Characters in a row that a text must share with a sample to count as a quotation."""
MAX_TEXT = 300
_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")


def redact(text: str, sample: Mapping[str, object]) -> str:
    """Return the beginning of `text` without the parts that are in the values of a sample."""
    values = "\n".join(_texts(sample))
    text = _QUOTED.sub(lambda match: _redact_quoted(match, values), text[:MAX_TEXT])
    # The text as Python's repr and as JSON have it, with escapes, is a quotation too.
    values += "\n" + repr(values) + "\n" + json.dumps(values)
    hidden = [False] * len(text)
    for start in range(len(text) - WINDOW + 1):
        if text[start : start + WINDOW] in values:
            hidden[start : start + WINDOW] = [True] * WINDOW
    kept = "".join("\0" if hide else char for char, hide in zip(text, hidden, strict=True))
    return re.sub("\0+", REDACTED, kept)


def _redact_quoted(match: re.Match[str], values: str) -> str:
    content = match[1] if match[1] is not None else match[2]
    return REDACTED if content and content in values else match[0]


def _texts(value: object) -> list[str]:
    if isinstance(value, Mapping):
        return [text for item in value.values() for text in _texts(item)]
    if isinstance(value, list | tuple):
        return [text for item in value for text in _texts(item)]
    return [str(value)]
