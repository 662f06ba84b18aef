"""Find where JSON values begin and end, by brackets and strings alone: exact for any valid JSON.

It is the slow way, at 50 to 300 MB/s. json_values.py needs it for a file's first block, and where
its guess was wrong.
"""

from __future__ import annotations

import re

QUOTE, BACKSLASH = 34, 92
OPENING = b"{["
_STRUCTURE = re.compile(rb'["{}\[\]]')
_SPACE = re.compile(rb"[ \t\r\n]*")
_SCALAR = re.compile(rb'[^ \t\r\n,\]{}\["]+')


def skip_space(raw: bytes, at: int) -> int:
    """Return the position of the next byte that is no white space, or the end."""
    match = _SPACE.match(raw, at)
    assert match is not None  # it matches the empty text
    return match.end()


def is_value_start(raw: bytes) -> bool:
    """Return whether a value may begin at the start of `raw`, which is not empty."""
    return raw[0] == QUOTE or raw[0] in OPENING or _SCALAR.match(raw) is not None


def find_value_end(raw: bytes, start: int, *, is_last: bool = False) -> int | None:
    """Return the end of the value at `start`: None if it is not complete, `start` if it is none.

    A number or a word at the end of `raw` is complete only if `is_last`: nothing follows.
    """
    if raw[start] != QUOTE and raw[start] not in OPENING:
        match = _SCALAR.match(raw, start)
        if match is None:
            return start
        return match.end() if match.end() < len(raw) or is_last else None
    at, depth = start, 0
    while (match := _STRUCTURE.search(raw, at)) is not None:
        at = match.end()
        code = raw[at - 1]
        if code == QUOTE:
            end = _find_string_end(raw, at)
            if end is None:
                return None
            at = end
        elif code in OPENING:
            depth += 1
            continue
        else:
            depth -= 1
        if depth <= 0:
            return at
    return None


def _find_string_end(raw: bytes, at: int) -> int | None:
    """Return the position behind the quote that ends a string; `at` is behind its first one."""
    while (quote := raw.find(b'"', at)) >= 0:
        before = quote - 1
        while before >= at and raw[before] == BACKSLASH:
            before -= 1
        at = quote + 1
        if (quote - 1 - before) % 2 == 0:
            return at
    return None


def scan_values(raw: bytes, *, in_array: bool, is_last: bool) -> list[tuple[int, int]]:
    """Return start and end of each whole value: elements of an array, or values in a row.

    `raw` begins at a value. Scanning stops at the first value that is not whole, and at anything
    else than a comma (in an array) or white space between two values.
    """
    spans = []
    at = 0
    while at < len(raw):
        end = find_value_end(raw, at, is_last=is_last)
        if end is None or end == at:
            break
        spans.append((at, end))
        at = skip_space(raw, end)
        if in_array:
            if raw[at : at + 1] != b",":
                break
            at = skip_space(raw, at + 1)
    return spans
