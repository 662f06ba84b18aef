"""Find what is private in rows, many at once, in this process or on several cores."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from cloudft.data.analysis.pii_scan import (
    Matches,
    PiiMatch,
    collect_strings,
    find_in_texts,
    iter_strings,
)
from cloudft.data.sources.row_reader import Row

if TYPE_CHECKING:
    from concurrent.futures import Future

    from cloudft.data.analysis.pii_workers import ScanPool

BATCH_CHARACTERS = 32 * 1024
"""Characters whose outline is searched for hints at once: few enough that most batches have none of
a rare kind, enough that short texts cost no more than long ones."""
MAX_SENT_CHARACTERS = 1024 * 1024
"""Characters of the largest batch that another process gets: those that wait are held in memory."""


class LocatedMatch(NamedTuple):
    """A match and the JSON pointer of its text within the record."""

    field: str
    match: PiiMatch


@dataclass
class _Batch:
    """Some rows and all their texts; `ends` says where the texts of each row end."""

    rows: list[Row] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    size: int = 0

    def add(self, row: Row) -> None:
        """Add a row."""
        before = len(self.texts)
        collect_strings(row.value, self.texts)
        self.rows.append(row)
        self.ends.append(len(self.texts))
        self.size += sum(map(len, self.texts[before:])) + 1

    def locate(self, matches_by_text: Matches) -> Iterator[tuple[Row, list[LocatedMatch]]]:
        """Yield each row with its matches."""
        by_row: dict[int, list[tuple[int, PiiMatch]]] = {}
        for index, matches in matches_by_text.items():
            number = bisect_right(self.ends, index)
            first = self.ends[number - 1] if number else 0
            by_row.setdefault(number, []).extend((index - first, match) for match in matches)
        for number, row in enumerate(self.rows):
            if number in by_row:
                fields = [pointer for pointer, _ in iter_strings(row.value)]
                yield row, [LocatedMatch(fields[index], match) for index, match in by_row[number]]
            else:
                yield row, []


def scan_rows(
    rows: Iterable[Row], pool: ScanPool | None = None
) -> Iterator[tuple[Row, list[LocatedMatch]]]:
    """Yield each row with what is private in its texts, in order."""
    if pool is None:
        for batch in _batches(rows):
            yield from batch.locate(find_in_texts(batch.texts))
        return
    pending: deque[tuple[_Batch, Future[Matches]]] = deque()
    for batch in _batches(rows):
        pending.append((batch, pool.submit(batch.texts, here=batch.size > MAX_SENT_CHARACTERS)))
        if len(pending) > pool.max_pending:
            first, matches = pending.popleft()
            yield from first.locate(matches.result())
    for batch, matches in pending:
        yield from batch.locate(matches.result())


def _batches(rows: Iterable[Row]) -> Iterator[_Batch]:
    batch = _Batch()
    for row in rows:
        batch.add(row)
        if batch.size >= BATCH_CHARACTERS:
            yield batch
            batch = _Batch()
    yield batch
