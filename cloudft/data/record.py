"""What a record says, whatever shape it came in."""

from __future__ import annotations

from dataclasses import dataclass


class BadRecord(Exception):
    """One record that can't be used: code, message, remedy, and the field within the record."""

    def __init__(self, code: str, message: str, fix: str, field: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.fix, self.field = code, message, fix, field


@dataclass(frozen=True)
class Turns:
    """A conversation: what the system says, then (role, texts) turn by turn."""

    shape: str
    system: tuple[str, ...]
    turns: tuple[tuple[str, tuple[str, ...]], ...]


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
