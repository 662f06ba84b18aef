"""Group records that are nearly the same, so that one decision informs the next."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloudft.data.analysis.near_duplicates import NearDuplicateIndex

SIMILARITY = 0.7
"""Similarity of two prompts from which they are labeled one after the other."""
COMPARED_CHARACTERS = 20_000
"""Characters at the beginning of a prompt that are compared."""


@dataclass
class NearGroups:
    """The groups so far. `leader` has the first record of each key's group; alone, its own."""

    leader: dict[str, str] = field(default_factory=dict)
    similarity: dict[str, float] = field(default_factory=dict)
    """How similar a record is to the first one of its group; the first one has no entry."""
    _leaders: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._index: NearDuplicateIndex | None = None
        if find_spec("rensa") is not None:
            from cloudft.data.analysis.near_duplicates import NearDuplicateIndex

            self._index = NearDuplicateIndex(SIMILARITY)

    @property
    def is_available(self) -> bool:
        """Return whether near duplicates can be found: rensa is installed."""
        return self._index is not None

    def add(self, records: Iterable[tuple[str, str]]) -> None:
        """Add keys with their prompts."""
        for key, text in records:
            if key in self.leader:
                continue
            near = None
            if self._index is not None:
                near = self._index.query_or_insert(text[:COMPARED_CHARACTERS])
            if near is None:
                self._leaders.append(key)
                self.leader[key] = key
            else:
                number, self.similarity[key] = near
                self.leader[key] = self._leaders[number]
