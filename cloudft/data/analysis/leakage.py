"""Find records of a held-out set that the training set has too: they falsify an evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from cloudft.data.analysis.near_duplicates import NearDuplicateIndex
from cloudft.data.analysis.text_keys import hash_text, normalize_text, split_record
from cloudft.data.records import LocatedRecord

LeakKind = Literal["same record", "same input", "near input"]


@dataclass(frozen=True)
class Leak:
    """A held-out record and the training record that it repeats.

    Case, white space and the Unicode form make no difference (text_keys.normalize_text).
    """

    kind: LeakKind
    role: str
    file: str
    line: int
    train_file: str
    train_line: int
    similarity: float


class LeakageIndex:
    """Remembers a training set: some 200 bytes a record, and 2 KB more with `near`."""

    def __init__(self, train: Iterable[LocatedRecord], near: float | None = None) -> None:
        self._records: dict[tuple[int, int], tuple[str, int]] = {}
        self._inputs: dict[int, tuple[str, int]] = {}
        self._near = NearDuplicateIndex(near) if near is not None else None
        self._near_positions: list[tuple[str, int]] = []
        for located in train:
            self._add(located)

    def _add(self, located: LocatedRecord) -> None:
        position, prompt = (located.file, located.line), split_record(located.record)[0]
        key, answer = _hash_record(located)
        self._records.setdefault((key, answer), position)
        first = self._inputs.setdefault(key, position)
        # Also a prompt that is like an earlier one: a held-out prompt may be like this one alone.
        if first is position and self._near is not None:
            self._near.insert(prompt)
            self._near_positions.append(position)

    def find_leaks(self, role: str, held_out: Iterable[LocatedRecord]) -> Iterator[Leak]:
        """Yield the leaks of one held-out set, in its order."""
        for located in held_out:
            match = self._find_match(located)
            if match is not None:
                kind, train, similarity = match
                yield Leak(kind, role, located.file, located.line, *train, similarity)

    def _find_match(self, located: LocatedRecord) -> tuple[LeakKind, tuple[str, int], float] | None:
        key, answer = _hash_record(located)
        if same := self._records.get((key, answer)):
            return "same record", same, 1.0
        if same := self._inputs.get(key):
            return "same input", same, 1.0
        near = self._near.query(split_record(located.record)[0]) if self._near else None
        return ("near input", self._near_positions[near[0]], near[1]) if near else None


def _hash_record(located: LocatedRecord) -> tuple[int, int]:
    """Return the hashes of a record's prompt and of its answer."""
    prompt, answer = split_record(located.record)
    return hash_text(normalize_text(prompt)), hash_text(normalize_text(answer))
