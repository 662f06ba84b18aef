"""What a record says, whatever shape it came in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


class BadRecord(Exception):
    """One record that can't be used: code, message, remedy, and a JSON pointer to the field."""

    def __init__(self, code: str, message: str, fix: str, field: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.fix = code, message, fix
        self.field = None if field is None else _as_pointer(field)


_NESTED = re.compile(r"(messages|system)(\[\d+\]|\.\w+)+")
_PATH = re.compile(r"\w+")


def _as_pointer(field: str) -> str:
    """`messages[0].content`, as messages for people have it, or a plain key."""
    return pointer(*_PATH.findall(field)) if _NESTED.fullmatch(field) else pointer(field)


def pointer(*keys: str | int) -> str:
    """A JSON pointer (RFC 6901) to a field within a record: /messages/0/content."""
    return "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in keys)


@dataclass(frozen=True)
class Turns:
    """A conversation: what the system says, then (role, texts) turn by turn."""

    shape: str
    system: tuple[str, ...]
    turns: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Graded(Turns):
    """A question with the key to its answer; `key` and `more` are handed to the grader."""

    key: object
    more: Mapping[str, object]


@dataclass(frozen=True)
class Document:
    """A text to go on from, without labels."""

    shape: str
    text: str


def not_blank(text: str, what: str, field: str) -> str:
    """The text itself. Raises BadRecord when there is nothing in it but spaces."""
    if not text.strip():
        fix = "give it text, or take the record out"
        raise BadRecord("EmptyField", f"{what} is empty", fix, field)
    return text
