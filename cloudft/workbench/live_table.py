"""What changes in the table of jobs while its page is open."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cloudft.storage.store import JobRecord
from cloudft.workbench.events import Events
from cloudft.workbench.job_states import KnownJob
from cloudft.workbench.job_table import JobRow, TablePage, TableQuery, make_row, make_table
from cloudft.workbench.workbench import Workbench

TABLE_EVERY_S = 5.0
"""Seconds after which jobs are looked for that are not on the page yet."""
ROW_EVERY_S = 2.0
"""Seconds between two changes of one row: a browser leaves the machine to the trainer."""

RenderRow = Callable[[JobRow], str]
RenderTable = Callable[[TablePage], str]


def version_of(rows: Sequence[str]) -> str:
    """Return a short text that changes with the rows of a page."""
    return hashlib.sha256("".join(rows).encode()).hexdigest()[:16]


class LiveTable:
    """Compares the table with what a page has. `look` returns what is new."""

    def __init__(
        self,
        workbench: Workbench,
        query: TableQuery,
        seen: str,
        *,
        render_row: RenderRow,
        render_table: RenderTable,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._workbench, self._query, self._seen = workbench, query, seen
        self._render_row, self._render_table, self._clock = render_row, render_table, clock
        self._records: Sequence[JobRecord] = ()
        self._marks: dict[str, object] = {}
        self._sent_at: dict[str, float] = {}
        self._folder_changed: int | None = None
        self._table_at = -TABLE_EVERY_S
        self._is_first = True

    def look(self) -> Events:
        """Return the whole table where other jobs are on the page now, else the changed rows."""
        now = self._clock()
        changed = _changed_at(self._workbench.home.jobs)
        if changed != self._folder_changed or now - self._table_at >= TABLE_EVERY_S:
            self._folder_changed, self._table_at = changed, now
            table = make_table(self._workbench, self._query)
            if self._is_first or self._ids(table.records) != self._ids(self._records):
                return self._take_table(table)
        rows = {}
        for record in self._records:
            row = self._changed_row(record, now)
            if row is not None:
                rows[record.id] = row
        return {"rows": rows} if rows else {}

    def _take_table(self, table: TablePage) -> Events:
        """Remember a table, and return it unless the page has it."""
        rows = [self._render_row(row) for row in table.rows]
        is_seen = self._is_first and version_of(rows) == self._seen
        self._is_first = False
        self._records = table.records
        self._marks = {r.id: self._workbench.jobs.fingerprint(r) for r in table.records}
        return {} if is_seen else {"table": self._render_table(table)}

    def _changed_row(self, record: JobRecord, now: float) -> str | None:
        mark = self._workbench.jobs.fingerprint(record)
        if mark == self._marks.get(record.id):
            return None
        if now - self._sent_at.get(record.id, -ROW_EVERY_S) < ROW_EVERY_S:
            return None
        self._marks[record.id], self._sent_at[record.id] = mark, now
        known = self._workbench.jobs.known_job(record)
        return (
            self._render_row(make_row(self._workbench, known))
            if isinstance(known, KnownJob)
            else None
        )

    @staticmethod
    def _ids(records: Sequence[JobRecord]) -> list[str]:
        return [record.id for record in records]


def _changed_at(folder: Path) -> int | None:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return None
