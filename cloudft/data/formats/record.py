"""What a record says, whatever format it came in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

RawRecord = Mapping[str, object]
"""One record as it was read: a JSON object, or a row of a table by its column names."""
JsonObject = dict[str, object]


class BadRecord(Exception):
    """One record that can't be used: code, message, remedy, and a JSON pointer to the field."""

    def __init__(self, code: str, message: str, fix: str, field: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.fix = code, message, fix
        self.field = None if field is None else _to_pointer(field)


_NESTED = re.compile(r"(messages|system)(\[\d+\]|\.\w+)+")
_PATH = re.compile(r"\w+")


def _to_pointer(field: str) -> str:
    """Return the JSON pointer of `messages[0].content`, as messages write it, or of a plain key."""
    if _NESTED.fullmatch(field):
        return json_pointer(*_PATH.findall(field))
    return json_pointer(field)


def json_pointer(*keys: str | int) -> str:
    """Return the JSON pointer (RFC 6901) to a field within a record: /messages/0/content."""
    return "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in keys)


@dataclass(frozen=True)
class Conversation:
    """A conversation: the system prompt's texts, then (role, texts) turn by turn."""

    format: str
    system: tuple[str, ...]
    turns: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class PromptWithReference(Conversation):
    """A prompt with the reference for its answer. The grader gets both and `extra_fields`."""

    reference: object
    extra_fields: RawRecord


@dataclass(frozen=True)
class Document:
    """A text without labels, for continued pre-training."""

    format: str
    text: str


Record = Conversation | Document


def require_text(text: str, what: str, field: str) -> str:
    """Return the text. Raises BadRecord (EmptyField) if it is empty or blank."""
    if not text.strip():
        fix = "give it text, or take the record out"
        raise BadRecord("EmptyField", f"{what} is empty", fix, field)
    return text
