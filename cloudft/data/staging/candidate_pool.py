"""Keep canonical lines from which some are chosen: a set that is split, or general data."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from cloudft.data.formats.fast_path import RecordBatch, encode_batch
from cloudft.data.formats.record import Conversation, Record
from cloudft.data.formats.registry import encode_record
from cloudft.data.staging.label_encoder import LabelEncoder
from cloudft.data.staging.split import compute_selection_keys

if TYPE_CHECKING:
    from numpy import integer, uint64
    from numpy.typing import NDArray

READ_BYTES = 256 * 1024
"""Bytes of lines that are read at a time."""


class Chunk(NamedTuple):
    """Some lines of a pool. `start` is the index of the first one, from 0."""

    start: int
    lines: list[bytes]

    @property
    def indices(self) -> slice:
        """Return the indices of its lines in the pool."""
        return slice(self.start, self.start + len(self.lines))


class CandidatePool:
    """One JSONL file in format `target`, and 13 bytes a record in memory to choose by.

    Raises OSError when the disk does not take it. Read it after leaving it as a context manager.
    """

    def __init__(self, path: Path, target: str, seed: int, purpose: str) -> None:
        self.path = path
        self._target, self._seed, self._purpose = target, seed, purpose
        self._keys: array[int] = array("Q")
        self._sizes: array[int] = array("I")
        self._labels = LabelEncoder()
        self._handle: IO[bytes] = path.open("xb", buffering=1024 * 1024)

    def __enter__(self) -> CandidatePool:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()

    def __len__(self) -> int:
        return len(self._keys)

    def add_record(self, record: Record, group: str | None = None) -> None:
        """Add one record of a group. Raises BadRecord when the format cannot hold it."""
        raw, characters = encode_record(record, self._target)
        answer = record.answer if isinstance(record, Conversation) else ""
        self._add(raw, [raw if group is None else group.encode()], [characters], [answer])

    def add_batch(self, batch: RecordBatch) -> None:
        """Add a block of plain records."""
        raw = encode_batch(batch, self._target)
        lines = raw.splitlines(keepends=True)
        self._add(raw, lines, batch.record_lengths(), batch.completions)

    def _add(self, raw: bytes, groups: list[bytes], sizes: list[int], answers: list[str]) -> None:
        self._handle.write(raw)
        self._keys.extend(compute_selection_keys(groups, self._seed, self._purpose))
        self._sizes.extend(sizes)
        self._labels.extend(answers)

    def selection_keys(self) -> NDArray[uint64]:
        """Return a number a record to choose by: equal for equal records, and within a group."""
        import numpy as np

        return np.frombuffer(self._keys, np.uint64)

    def label_codes(self) -> NDArray[integer] | None:
        """Return a number a record for its label; None when the answers are no labels."""
        return self._labels.codes()

    def record_lengths(self) -> NDArray[integer]:
        """Return the characters of each record's texts."""
        import numpy as np

        return np.frombuffer(self._sizes, np.uint32)

    def iter_chunks(self) -> Iterator[Chunk]:
        """Yield all lines, in order."""
        start = 0
        with self.path.open("rb", buffering=1024 * 1024) as handle:
            while lines := handle.readlines(READ_BYTES):
                yield Chunk(start, lines)
                start += len(lines)
