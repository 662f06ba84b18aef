"""The record of each job: `CLOUDFT_HOME/jobs/ID/`.

    record.json      the request: written, durably, before the backend is called
    submitted.json   the backend's own id: written when the backend has accepted the job
    submit.lock      held while a `submit` works on this job
    tracking/        what experiment trackers were sent (tracking_files.py)
    (everything else belongs to the backend)

A record without submitted.json and without a living `submit` is an interrupted intent; the same
submit finds it and continues it. A folder appears together with its record, by one rename. There is
no index: the folders are the list.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import orjson

from cloudft.errors import BadDocument, DamagedJob, JobNotFound, JobStateConflict, UsageError
from cloudft.storage.atomic_files import (
    STALE_AFTER_S,
    age_seconds,
    as_store_error,
    atomic_write,
    fsync_folder,
    is_locked,
    make_private_folder,
    try_lock,
)
from cloudft.storage.documents import Count, FileName, check_iso_time, decode
from cloudft.storage.side_jobs import without_side_jobs

VERSION = 1
RECORD_FILE, SUBMITTED_FILE, SUBMIT_LOCK_FILE = "record.json", "submitted.json", "submit.lock"
MAX_NAME_BYTES = 255
TEMPORARY_PREFIX, TRASH_PREFIX = ".new-", ".trash-"

T = TypeVar("T")


def utc_now() -> str:
    """Return the time in UTC, ISO 8601, to the millisecond."""
    return to_iso_time(time.time())


def to_iso_time(seconds: float) -> str:
    """Format seconds since 1970 as ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")


@dataclass(frozen=True)
class JobRecord:
    """A submitted job: `request` is the whole request of its plan, `spec` its job file.

    Paths in `spec` are absolute. `folder` is the job's own.
    """

    id: str
    name: str
    backend: str
    token: str
    created_at: str
    customization_type: str
    base_model: str
    hyper_parameters: Mapping[str, Any]
    request: Mapping[str, Any]
    manifest: Mapping[str, Any]
    estimate: Mapping[str, Any]
    tags: Mapping[str, str]
    spec: Mapping[str, Any]
    folder: Path
    backend_job_id: str | None = None

    @property
    def is_being_submitted(self) -> bool:
        """Return whether a living `submit` works on this job."""
        return is_locked(self.folder / SUBMIT_LOCK_FILE)


class Store:
    """The jobs below one folder. Any number of processes may use it at once."""

    def __init__(self, jobs: Path) -> None:
        self.jobs = jobs

    @contextlib.contextmanager
    def create(self, record: JobRecord) -> Iterator[bool]:
        """Write `record`; within the block this process holds the job's submit lock.

        Yield False when a job of that id exists already: nothing is written, and the lock is waited
        for, so that a concurrent submit has ended.
        """
        folder = self.jobs / record.id
        with as_store_error(f"job {record.id} can't be saved", folder):
            make_private_folder(self.jobs)
            self._remove_leftovers()
            is_created, lock = self._create_folder(record, folder)
        try:
            yield is_created
        finally:
            os.close(lock)

    def _create_folder(self, record: JobRecord, folder: Path) -> tuple[bool, int]:
        # The lock is taken before the folder gets its name: nobody ever sees an unlocked new job.
        temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=self.jobs))
        lock = try_lock(temporary / SUBMIT_LOCK_FILE)
        assert lock is not None
        try:
            atomic_write(temporary / RECORD_FILE, _encode(record))
            # Renaming onto a folder that is not empty fails, so one of several submits wins.
            os.rename(temporary, folder)
        except OSError as error:
            os.close(lock)
            shutil.rmtree(temporary, ignore_errors=True)
            if not folder.is_dir():  # not the name of another job: the disk is full
                raise error
            return False, _wait_for_lock(folder / SUBMIT_LOCK_FILE)
        fsync_folder(self.jobs)
        return True, lock

    def _remove_leftovers(self) -> None:
        """Remove what a killed submit or delete left half-done."""
        for prefix in (TEMPORARY_PREFIX, TRASH_PREFIX):
            for path in self.jobs.glob(f"{prefix}*"):
                # The age protects a folder whose process has not locked it yet.
                if age_seconds(path) > STALE_AFTER_S and not is_locked(path / SUBMIT_LOCK_FILE):
                    shutil.rmtree(path, ignore_errors=True)

    def mark_submitted(self, job_id: str, backend_job_id: str) -> None:
        """Write the backend's id of a job that the backend has accepted."""
        path = self.jobs / job_id / SUBMITTED_FILE
        with as_store_error(f"job {job_id} can't be saved", path):
            atomic_write(path, orjson.dumps({"backendJobId": backend_job_id}))

    def get(self, job_id: str) -> JobRecord:
        """Return one record. Raise JobNotFound, or DamagedJob when its folder can't be read."""
        folder = self.jobs / job_id
        try:
            if _can_be_id(job_id):
                return _decode(folder)
        except DamagedJob:
            if folder.is_dir():
                raise
        fix = "`cloudft list` shows the jobs."
        raise JobNotFound(f"there is no job {job_id[:MAX_NAME_BYTES]}", fix=fix)

    def get_or_none(self, job_id: str) -> JobRecord | None:
        """Return one record, or None where there is no record of that id. Raise DamagedJob."""
        return self.get(job_id) if (self.jobs / job_id / RECORD_FILE).exists() else None

    def iter_records(self) -> Iterator[JobRecord | DamagedJob]:
        """Yield every job, newest first; then each that can't be read, as the error it raises."""
        records: list[JobRecord] = []
        damaged: list[DamagedJob] = []
        for job_id in self.job_ids():
            try:
                records.append(self.get(job_id))
            except DamagedJob as error:
                damaged.append(error)
            except JobNotFound:
                continue  # deleted since the folder was listed
        records.sort(key=lambda record: (record.created_at, record.id), reverse=True)
        yield from records
        yield from damaged

    def job_ids(self) -> list[str]:
        """Return the names of all job folders. Raise StoreError when the folder can't be read."""
        with as_store_error("the jobs can't be listed", self.jobs):
            try:
                with os.scandir(self.jobs) as entries:
                    return [e.name for e in entries if e.is_dir() and not e.name.startswith(".")]
            except FileNotFoundError:
                return []

    def find_by_reference(self, reference: str) -> JobRecord:
        """Return a job by id, unique prefix of its id, name (the newest), or `-` for the last one.

        Raise JobNotFound, or UsageError when a prefix matches several jobs.
        """
        ids = self.job_ids()
        if reference in ids:
            return self.get(reference)
        matching = sorted(i for i in ids if reference and i.startswith(reference))
        records = [r for r in self.iter_records() if isinstance(r, JobRecord)]
        # The last job is one that somebody has submitted, however many trials a sweep made since.
        last = (without_side_jobs(records) or records) if reference == "-" else []
        chosen = last or [r for r in records if r.name == reference]
        if chosen:
            return chosen[0]
        if len(matching) == 1:
            return self.get(matching[0])
        if matching:
            raise UsageError(
                f"{reference} matches {len(matching)} jobs: {', '.join(matching[:5])}",
                fix="write more of the id.",
            )
        what = "there is no job yet" if reference == "-" else f"there is no job {reference}"
        raise JobNotFound(what, fix="`cloudft list` shows the jobs.")

    def delete(self, job_id: str) -> None:
        """Remove a job's folder in one step: a kill leaves nothing that lists."""
        folder = self.jobs / job_id
        if is_locked(folder / SUBMIT_LOCK_FILE):
            raise JobStateConflict(f"{job_id} is being submitted", fix="wait a moment.")
        trash = self.jobs / f"{TRASH_PREFIX}{job_id}-{os.getpid()}"
        with as_store_error(f"job {job_id} can't be deleted", folder):
            if folder.is_symlink():  # the folder behind the link is not ours
                folder.unlink()
                return
            # One rename makes the job disappear; the slow removal may be interrupted.
            os.rename(folder, trash)
            shutil.rmtree(trash)


def _wait_for_lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


class _File(msgspec.Struct):
    name: FileName
    sha256: str
    records: Count
    tokens: Count


class _Source(msgspec.Struct):
    role: str
    path: str
    records: Count
    shape: str


class _Manifest(msgspec.Struct):
    sha256: str
    files: dict[str, _File]
    sources: list[_Source] = []


class _Usd(msgspec.Struct, rename="camel"):
    training: float | None
    storage_per_month: float | None = None
    serving_per_hour: float | None = None


class _Estimate(msgspec.Struct):
    usd: _Usd


class _Location(msgspec.Struct):
    region: str | None = None
    profile: str | None = None
    endpoint_url: str | None = None


class _Request(msgspec.Struct):
    place: _Location | None = None
    calls: list[dict[str, Any]] = []
    machine: list[dict[str, Any]] = []


class _CheckedParts(msgspec.Struct):
    """The fields that every command relies on, of the three mappings that a record keeps whole."""

    manifest: _Manifest
    estimate: _Estimate
    request: _Request


class _Document(msgspec.Struct, rename="camel"):
    id: str
    name: str
    backend: str
    token: str
    created_at: str
    customization_type: str
    base_model: str
    hyper_parameters: dict[str, int | float]
    request: dict[str, Any]
    manifest: dict[str, Any]
    estimate: dict[str, Any]
    tags: dict[str, str]
    spec: dict[str, Any]


class _Submitted(msgspec.Struct, rename="camel"):
    backend_job_id: str


def _encode(record: JobRecord) -> bytes:
    names = zip(_Document.__struct_fields__, _Document.__struct_encode_fields__, strict=True)
    content = {key: getattr(record, name) for name, key in names}
    return orjson.dumps({"version": VERSION, **content}, option=orjson.OPT_INDENT_2)


def _can_be_id(text: str) -> bool:
    """Return whether a text names a folder beside others, and not a path to elsewhere."""
    is_name = text not in ("", ".", "..") and "/" not in text and text.isprintable()
    return is_name and len(text.encode()) <= MAX_NAME_BYTES


def _decode(folder: Path) -> JobRecord:
    path = f"{folder}/{RECORD_FILE}"  # a thousand of them are read at once: no Path is made of each
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            content = file.read()
        document = decode(content, _Document, file=path, versions=(VERSION,))
        decode(content, _CheckedParts, file=path)
        check_iso_time(document.created_at, "createdAt", file=path)
        if document.id != folder.name:
            why = f"it is the record of the job {document.id}: a copy of its folder"
            raise damaged_job(Path(path), why, "id")
        values = {name: getattr(document, name) for name in _FIELDS}
        path = f"{folder}/{SUBMITTED_FILE}"
        return JobRecord(**values, folder=folder, backend_job_id=_backend_job_id(path))
    except DamagedJob:
        raise
    except (BadDocument, OSError) as error:
        raise _damaged_job_from(Path(path), error) from error


_FIELDS = _Document.__struct_fields__


def _backend_job_id(path: str) -> str | None:
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            content = file.read()
    except FileNotFoundError:
        return None
    return decode(content, _Submitted, file=path).backend_job_id


def read_job_document(path: Path, as_type: type[T]) -> T | None:
    """Return a decoded file of a job's folder, or None when it is missing. Raise DamagedJob."""
    try:
        return decode(path.read_bytes(), as_type, file=path)
    except FileNotFoundError:
        return None
    except (BadDocument, OSError) as error:
        raise _damaged_job_from(path, error) from error


@contextlib.contextmanager
def as_damaged_job(path: Path, job: str | None = None) -> Iterator[None]:
    """Convert what reading a job's file raises within the block into DamagedJob.

    `job` is the name of the folder that contains `path`, unless it is given.
    """
    try:
        yield
    except DamagedJob:
        raise
    except (BadDocument, OSError) as error:
        raise _damaged_job_from(path, error, job) from error


def _damaged_job_from(
    path: Path, error: BadDocument | OSError, job: str | None = None
) -> DamagedJob:
    if isinstance(error, OSError):
        return damaged_job(path, error.strerror or str(error), job=job)
    why = error.message.removeprefix(f"{path.name} is damaged: ")
    return damaged_job(path, why, error.field, error.line, job=job)


def damaged_job(
    path: Path,
    why: str,
    field: str | None = None,
    line: int | None = None,
    *,
    job: str | None = None,
) -> DamagedJob:
    """Return the error for a damaged file in a job's folder."""
    job = job or path.parent.name
    return DamagedJob(
        f"job {job} is damaged: {path.name} can't be read: {why}",
        job=job,
        file=str(path),
        line=line,
        field=field,
        fix=f"restore the file from a backup, or remove the job: cloudft delete {job}",
    )
