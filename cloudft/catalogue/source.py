"""Source of a fact in the catalogue."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """Source of a fact: the URL, and the date of the copy that was read."""

    key: str
    url: str
    date: str

    def __str__(self) -> str:
        return ", ".join(part for part in (self.url, self.date) if part)
