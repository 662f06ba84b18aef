"""Training examples as token ids, and counts of what happened to the records of a file."""

from __future__ import annotations

import bisect
import itertools
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np


@dataclass(frozen=True)
class Example:
    """A training example: `ids` of shape [length], `loss_mask` of the same shape (bool).

    An example of several sequences, such as a better and a worse answer, has them one after
    another in `ids`, and their lengths in `row_lengths`. No micro-batch separates them.
    `reference` has each sequence's log-probability under the model that training starts from, for
    objectives that compare with it.
    """

    ids: np.ndarray
    loss_mask: np.ndarray
    row_lengths: tuple[int, ...] = field(default=(), kw_only=True)
    reference: tuple[float, ...] = field(default=(), kw_only=True)

    @property
    def row_count(self) -> int:
        """Return the number of sequences."""
        return len(self.row_lengths) or 1

    def rows(self) -> tuple[Example, ...]:
        """Return the sequences that go through the model, each as an example of its own."""
        if not self.row_lengths:
            return (self,)
        cuts = np.cumsum(self.row_lengths)[:-1]
        parts = zip(np.split(self.ids, cuts), np.split(self.loss_mask, cuts), strict=True)
        return tuple(Example(ids, mask) for ids, mask in parts)


def flatten_rows(examples: Sequence[Example]) -> list[Example]:
    """Return the sequences of all examples, in order."""
    return [row for example in examples for row in example.rows()]


class ExampleSequence(Sequence[Example]):
    """Examples that are made when they are read. A subclass says how many there are, and reads."""

    @abstractmethod
    def read(self, at: int) -> Example:
        """Return the example at `at`, which is between 0 and the length."""

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...

    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        """Return an example, or a list of those of a slice. Raise IndexError."""
        if isinstance(index, slice):
            return [self.read(at) for at in range(*index.indices(len(self)))]
        at = index + len(self) if index < 0 else index
        if not 0 <= at < len(self):
            raise IndexError(index)
        return self.read(at)


class JoinedExamples(ExampleSequence):
    """The examples of several files as one sequence. Nothing is copied."""

    def __init__(self, parts: Sequence[Sequence[Example]]) -> None:
        self.parts = parts
        self._ends = list(itertools.accumulate(map(len, parts)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def read(self, at: int) -> Example:
        """Return the example at a place of its part."""
        part = bisect.bisect_right(self._ends, at)
        return self.parts[part][at - (self._ends[part - 1] if part else 0)]

    def __iter__(self) -> Iterator[Example]:
        return itertools.chain.from_iterable(self.parts)


def example_lengths(examples: Sequence[Example]) -> np.ndarray:
    """Return the number of tokens of each example, [examples]. Those of arrays are not made."""
    lengths: np.ndarray | None = getattr(examples, "lengths", None)
    if lengths is not None:
        return lengths
    if isinstance(examples, JoinedExamples):
        empty = np.empty(0, dtype=np.int64)
        return np.concatenate([empty, *map(example_lengths, examples.parts)])
    return np.array([len(example.ids) for example in examples], dtype=np.int64)


def longest_first(examples: Sequence[Example]) -> np.ndarray:
    """Return the indices of the examples by length, the longest first; equal ones in order."""
    return np.argsort(-example_lengths(examples), kind="stable")


@dataclass
class EncodedData:
    """The examples of one file, with counts of what happened to its records."""

    examples: Sequence[Example]
    """A list while they are added; arrays (token_arrays.py) once they are kept."""
    records: int
    tokens: int = 0
    loss_tokens: int = 0
    truncated: int = 0
    masked: int = 0
    """Records that lost their whole answer."""
    longest: int = 0
    last_turn_only: int = 0
    """Records of which only the last answer carries loss: the template rewrites earlier turns."""
    highest_id: int = 0

    def add(self, ids: list[int], loss_mask: list[bool], max_length: int) -> None:
        """Count one record and keep what fits, if any of its answer is left."""
        self.longest = max(self.longest, len(ids))
        if len(ids) > max_length:
            self.truncated += 1
            ids, loss_mask = ids[:max_length], loss_mask[:max_length]
        mask = np.array(loss_mask, dtype=bool)
        mask[:1] = False  # nothing before the first token predicts it
        if not mask.any():
            self.masked += 1
            return
        self.append(Example(np.array(ids, dtype=np.int32), mask))

    def add_rows(self, rows: Sequence[tuple[list[int], list[bool]]], max_length: int) -> None:
        """Count one record of several sequences and keep it, each sequence cut to `max_length`.

        It is left out if a sequence has no answer left, or if what is left of all is equal.
        """
        longest = max(len(ids) for ids, _ in rows)
        self.longest = max(self.longest, longest)
        self.truncated += longest > max_length
        parts = [
            (np.array(ids[:max_length], dtype=np.int32), np.array(mask[:max_length], dtype=bool))
            for ids, mask in rows
        ]
        for _, mask in parts:
            mask[:1] = False  # nothing before the first token predicts it
        first = parts[0][0]
        if not all(mask.any() for _, mask in parts) or all(
            np.array_equal(ids, first) for ids, _ in parts
        ):
            self.masked += 1
            return
        ids, masks = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        self.append(Example(ids, masks, row_lengths=tuple(len(ids) for ids, _ in parts)))

    def add_document(self, ids: list[int]) -> None:
        """Add a document that is to be packed with others."""
        self.append(Example(np.array(ids, dtype=np.int32), np.ones(len(ids), dtype=bool)))

    def add_packed_sequence(self, ids: np.ndarray) -> None:
        """Add one packed sequence: every token except the first is predicted."""
        mask = np.ones(len(ids), dtype=bool)
        mask[0] = False
        self.append(Example(ids.copy(), mask))

    def append(self, example: Example) -> None:
        """Keep an example and count its tokens."""
        assert isinstance(self.examples, list)
        self.examples.append(example)
        self.tokens += len(example.ids)
        self.loss_tokens += int(example.loss_mask.sum())
        self.highest_id = max(self.highest_id, int(example.ids.max(initial=0)))

    def add_counts(self, other: EncodedData) -> None:
        """Add the counts of other data. The examples stay."""
        self.records += other.records
        self.tokens += other.tokens
        self.loss_tokens += other.loss_tokens
        self.truncated += other.truncated
        self.masked += other.masked
        self.longest = max(self.longest, other.longest)
        self.last_turn_only += other.last_turn_only
        self.highest_id = max(self.highest_id, other.highest_id)

    def summary(self) -> dict[str, int]:
        """Return the counts for the job's summary."""
        return {
            "records": self.records,
            "sequences": len(self.examples),
            "tokens": self.tokens,
            "learnedTokens": self.loss_tokens,
            "truncatedRecords": self.truncated,
            "maskedRecords": self.masked,
            "longestRecordTokens": self.longest,
            "lastTurnOnlyRecords": self.last_turn_only,
        }


def merge_data(parts: Iterable[EncodedData]) -> EncodedData:
    """Return several files' examples as one, with the sums of their counts. Nothing is copied."""
    parts = list(parts)
    merged = EncodedData(JoinedExamples([part.examples for part in parts]), 0)
    for part in parts:
        merged.add_counts(part)
    return merged
