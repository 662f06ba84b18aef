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
    return json_pointer(*_PATH.findall(field)) if _NESTED.fullmatch(field) else json_pointer(field)


def json_pointer(*keys: str | int) -> str:
    """A JSON pointer (RFC 6901) to a field within a record: /messages/0/content."""
    return "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in keys)


@dataclass(frozen=True)
class Conversation:
    """A conversation: what the system says, then (role, texts) turn by turn."""

    format: str
    system: tuple[str, ...]
    turns: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class PromptWithReference(Conversation):
    """A question with the key to its answer; `key` and `more` are handed to the grader."""

    reference: object
    extra_fields: Mapping[str, object]


@dataclass(frozen=True)
class Document:
    """A text to go on from, without labels."""

    format: str
    text: str


def require_text(text: str, what: str, field: str) -> str:
    """The text itself. Raises BadRecord when there is nothing in it but spaces."""
    if not text.strip():
        fix = "give it text, or take the record out"
        raise BadRecord("EmptyField", f"{what} is empty", fix, field)
    return text
