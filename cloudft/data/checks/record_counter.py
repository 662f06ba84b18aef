"""Count records and keep nothing: what a check does with the good ones."""

from __future__ import annotations

from cloudft.data.formats.fast_path import RecordBatch, encode_batch
from cloudft.data.formats.record import Record
from cloudft.data.formats.registry import encode_record
from cloudft.data.token_estimate import estimate_tokens
from cloudft.types import DataVolume

CounterState = tuple[int, int, bool, str | None]
"""Records, characters, `has_distinct_records`, the first record as a line."""


class RecordCounter:
    """Counts the records that format `target` can hold.

    `has_distinct_records` is False if all of them are equal: such records can't be split.
    """

    def __init__(self, target: str) -> None:
        self.has_distinct_records = False
        self._target = target
        self._records = self._characters = 0
        self._first: bytes | None = None

    def add_record(self, record: Record, group: str | None = None) -> None:
        """Count one record. Raises BadRecord when the format cannot hold it."""
        raw, characters = encode_record(record, self._target)
        self._compare(raw if group is None else group.encode())
        self._records += 1
        self._characters += characters

    def add_batch(self, batch: RecordBatch) -> None:
        """Count a block of plain records."""
        if not self.has_distinct_records:
            for raw in encode_batch(batch, self._target).splitlines(keepends=True):
                self._compare(raw)
        self._records += len(batch)
        self._characters += batch.characters

    def _compare(self, raw: bytes) -> None:
        if self._first is None:
            self._first = raw
        elif raw != self._first:
            self.has_distinct_records = True

    def state(self) -> CounterState:
        """Return what was counted, for `merge` in another process."""
        first = None if self._first is None else self._first.decode("utf-8", "surrogatepass")
        return self._records, self._characters, self.has_distinct_records, first

    def merge(self, records: int, characters: int, is_distinct: bool, first: str | None) -> None:
        """Add the `state` of another counter."""
        self.has_distinct_records = self.has_distinct_records or is_distinct
        if first is not None:
            self._compare(first.encode("utf-8", "surrogatepass"))
        self._records += records
        self._characters += characters

    def __len__(self) -> int:
        return self._records

    def estimate_volume(self, records: int | None = None) -> DataVolume:
        """Return what was counted; with `records`, an average share of it."""
        if records is None or not self._records:
            records = self._records
        characters = self._characters * records // max(1, self._records)
        return DataVolume(records, characters, estimate_tokens(characters))

    def estimate_records(self, characters: int) -> int:
        """Return how many average records have so many characters, at least 1."""
        return max(1, round(characters * self._records / max(1, self._characters)))
