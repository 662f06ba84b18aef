"""Curves and logs of jobs that run on a cloud: read in the background, kept with their age."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from cloudft.errors import CloudftError
from cloudft.jobs.curves.columns import CurveColumns
from cloudft.jobs.lifecycle import backend_for
from cloudft.storage.home import Home
from cloudft.storage.store import JobRecord
from cloudft.types import LogLine

READ_EVERY_S = 30.0
MAX_LINES = 2000
"""Last lines of a log that are kept."""


@dataclass(frozen=True)
class CloudDetail:
    """What a cloud has of a job: its curves and the end of its log, or `reason` why not."""

    curves: CurveColumns = field(default_factory=CurveColumns)
    log: Sequence[LogLine] = ()
    reason: str = ""
    seen_at: float = 0.0


class CloudDetails:
    """The details of the jobs whose pages were opened. Threads share it."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._lock = threading.Lock()
        self._found: dict[str, CloudDetail] = {}
        self._began: dict[str, float] = {}
        self._reading: set[str] = set()

    def get(self, record: JobRecord) -> CloudDetail | None:
        """Return what is known, None at first; begin to read what is older than READ_EVERY_S."""
        now = time.monotonic()
        with self._lock:
            is_due = now - self._began.get(record.id, -READ_EVERY_S) >= READ_EVERY_S
            if is_due and record.id not in self._reading:
                self._reading.add(record.id)
                self._began[record.id] = now
                threading.Thread(target=self._read, args=(record,), daemon=True).start()
            return self._found.get(record.id)

    def _read(self, record: JobRecord) -> None:
        try:
            found = self._read_all(record)
        except Exception as error:  # of any library: the page shows it, and later reads follow
            why = error.message if isinstance(error, CloudftError) else repr(error)
            found = CloudDetail(reason=why, seen_at=time.time())
        with self._lock:
            self._found[record.id] = found
            self._reading.discard(record.id)

    def _read_all(self, record: JobRecord) -> CloudDetail:
        backend = backend_for(record, self.home)
        job_id = record.backend_job_id or record.id
        curves = CurveColumns()
        curves.add(list(backend.metrics(job_id)))
        return CloudDetail(curves, list(backend.logs(job_id))[-MAX_LINES:], seen_at=time.time())
