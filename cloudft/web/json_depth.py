"""Measure how deep the values of a JSON text are nested, before anything walks through them.

Decoders, encoders and our own code recurse into what they are given, up to a limit that belongs to
the process: libraries raise it (jsonata, imported by moto), and an error far inside is no answer.
"""

from __future__ import annotations

MAX_JSON_DEPTH = 100
"""Levels of nesting that a request's body may have."""
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def is_within_depth(text: bytes, depth: int = MAX_JSON_DEPTH) -> bool:
    """Return whether no value of a JSON text lies in more than `depth` objects and arrays."""
    if text.count(b"[") + text.count(b"{") <= depth:
        return True
    without_escapes = text.replace(rb"\\", b"").replace(rb"\"", b"")
    outside_strings = b"".join(without_escapes.split(b'"')[::2])
    level = 0
    for bracket in outside_strings.translate(None, _NO_BRACKETS):
        level += 1 if bracket in b"[{" else -1
        if level > depth:
            return False
    return True
