"""The states of all jobs as a page shows them: at once, and never waiting for a cloud.

Jobs on this machine are read when something in their folder has changed. Jobs of a cloud are
described in the background; until then, and when that fails, a page says so.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cloudft.backends import DEFAULT_BACKEND
from cloudft.backends.local.job_folder import JobFolder
from cloudft.errors import CloudftError, DamagedJob
from cloudft.jobs.lifecycle import Job, backend_for, refresh
from cloudft.jobs.listing import UnreachableJob, describe_all
from cloudft.storage.home import Home
from cloudft.storage.store import RECORD_FILE, SUBMITTED_FILE, JobRecord, Store
from cloudft.types import JobState

CLOUD_EVERY_S = 30.0
"""Seconds between two looks at a cloud while a page is open."""
LOOKING, UNKNOWN = "Looking", "Unknown"
"""Of a cloud's job that was not described yet, and of one that could not be."""


@dataclass(frozen=True)
class KnownJob:
    """A job, and what is known of its state: `state`, or `reason` why there is none.

    `seen_at` is when a cloud's job was described (time.time()); None for one on this machine.
    """

    record: JobRecord
    state: JobState | None
    reason: str = ""
    seen_at: float | None = None

    @property
    def status(self) -> str:
        """Return the job's status, LOOKING or UNKNOWN."""
        if self.state is not None:
            return self.state.status
        return UNKNOWN if self.reason else LOOKING

    @property
    def job(self) -> Job | None:
        """Return record and state, where the state is known."""
        return None if self.state is None else Job(self.record, self.state)


_Described = JobState | UnreachableJob | DamagedJob


class JobStates:
    """What the workbench knows of every job. Threads share it."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._lock = threading.Lock()
        self._records: dict[str, tuple[object, JobRecord | DamagedJob]] = {}
        self._local: dict[str, tuple[object, KnownJob | DamagedJob]] = {}
        self._cloud: dict[str, tuple[_Described, float]] = {}
        self._cloud_began = -CLOUD_EVERY_S
        self._is_looking = False

    def list_jobs(self) -> list[KnownJob | DamagedJob]:
        """Return every job, newest first; then those that can't be read. Raise StoreError."""
        store = Store(self.home.jobs)
        found = [self._record(store, job_id) for job_id in store.job_ids()]
        records = [one for one in found if isinstance(one, JobRecord)]
        records.sort(key=lambda record: (record.created_at, record.id), reverse=True)
        self.look_at_clouds(records)
        known = [self.known_job(record) for record in records]
        damaged = [one for one in found if isinstance(one, DamagedJob)]
        return [one for one in known if isinstance(one, KnownJob)] + [
            *(one for one in known if isinstance(one, DamagedJob)),
            *damaged,
        ]

    def get(self, job_id: str) -> KnownJob:
        """Return one job. Raise JobNotFound, DamagedJob."""
        record = Store(self.home.jobs).get(job_id)
        self.look_at_clouds([record])
        known = self.known_job(record)
        if isinstance(known, DamagedJob):
            raise known
        return known

    def known_job(self, record: JobRecord) -> KnownJob | DamagedJob:
        """Return what is known of a job now."""
        if record.backend == DEFAULT_BACKEND:
            return self._local_job(record)
        with self._lock:
            described = self._cloud.get(record.id)
        if described is None:
            return KnownJob(record, None)
        found, seen_at = described
        if isinstance(found, JobState):
            return KnownJob(record, found, seen_at=seen_at)
        reason = found.unavailable.reason if isinstance(found, UnreachableJob) else found.message
        return KnownJob(record, None, reason, seen_at)

    def fingerprint(self, record: JobRecord) -> object:
        """Return a value that changes whenever `known_job` may return something else."""
        if record.backend == DEFAULT_BACKEND:
            return _folder_fingerprint(record)
        with self._lock:
            return self._cloud.get(record.id, (None,))[0]

    def look_at_clouds(self, records: Sequence[JobRecord], *, now: bool = False) -> None:
        """Describe the clouds' jobs in the background, unless that was done a moment ago."""
        cloud = [record for record in records if record.backend != DEFAULT_BACKEND]
        with self._lock:
            is_new = any(record.id not in self._cloud for record in cloud)
            age = time.monotonic() - self._cloud_began
            if not cloud or self._is_looking or not (now or is_new or age >= CLOUD_EVERY_S):
                return
            self._is_looking = True
            self._cloud_began = time.monotonic()
        threading.Thread(target=self._look, args=(cloud,), name="clouds", daemon=True).start()

    def _look(self, records: Sequence[JobRecord]) -> None:
        try:
            found: dict[str, _Described] = dict(describe_all(records, self.home))
        except Exception as error:  # of any library: the page shows it, and later looks follow
            why = error.message if isinstance(error, CloudftError) else repr(error)
            found = {record.id: DamagedJob(why, job=record.id) for record in records}
        seen_at = time.time()
        with self._lock:
            self._cloud |= {job_id: (state, seen_at) for job_id, state in found.items()}
            self._is_looking = False

    def _record(self, store: Store, job_id: str) -> JobRecord | DamagedJob:
        folder = store.jobs / job_id
        mark = (_changed_at(folder / RECORD_FILE), _changed_at(folder / SUBMITTED_FILE))
        known = self._records.get(job_id)
        if known is not None and known[0] == mark:
            return known[1]
        try:
            record: JobRecord | DamagedJob = store.get(job_id)
        except DamagedJob as error:
            record = error
        except CloudftError as error:  # deleted since the folder was listed
            return DamagedJob(error.message, job=job_id, fix=error.fix)
        self._records[job_id] = mark, record
        return record

    def _local_job(self, record: JobRecord) -> KnownJob | DamagedJob:
        mark = _folder_fingerprint(record)
        known = self._local.get(record.id)
        if known is not None and known[0] == mark:
            return known[1]
        try:
            state = refresh(record, backend_for(record, self.home)).state
            found: KnownJob | DamagedJob = KnownJob(record, state)
        except DamagedJob as error:
            found = error
        except CloudftError as error:
            found = DamagedJob(error.message, job=record.id, fix=error.fix)
        self._local[record.id] = mark, found
        return found


def _folder_fingerprint(record: JobRecord) -> object:
    try:
        being_submitted = record.backend_job_id is None and record.is_being_submitted
        return JobFolder(record.folder).fingerprint(), record.backend_job_id, being_submitted
    except OSError as error:
        return str(error)


def _changed_at(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino
