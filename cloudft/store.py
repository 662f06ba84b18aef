"""What cloudft remembers of each job: `CLOUDFT_HOME/jobs/ID/`.

    record.json      what was asked for: written, durably, before the backend is called
    submitted.json   the backend's own id: written when the backend has taken the job
    submit.lock      held while a `submit` is at work on this job
    (the rest belongs to the backend)

A record without submitted.json and without a living `submit` is an intent that was cut off; the
same
submit finds it and goes on with it. A folder appears with its record in it, by one rename. There is
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
from typing import Any

import orjson

from cloudft.errors import DamagedJob, JobNotFound, JobStateConflict, UsageError
from cloudft.files import (
    LEFT_BEHIND_S,
    age_s,
    as_store_error,
    is_locked,
    private_folder,
    sync_folder,
    try_lock,
    write_whole,
)

VERSION = 1
RECORD, SUBMITTED, SUBMIT_LOCK = "record.json", "submitted.json", "submit.lock"
TEMPORARY, TRASH = ".new-", ".trash-"


def utc_now() -> str:
    """The time in UTC, ISO 8601, to the millisecond."""
    return iso_time(time.time())


def iso_time(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")


@dataclass(frozen=True)
class Record:
    """What was asked for. `request` is the plan's, whole; `spec` the job file's, paths absolute."""

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
    def being_submitted(self) -> bool:
        """True while a living `submit` is at work on it."""
        return is_locked(self.folder / SUBMIT_LOCK)


class Store:
    """The jobs below one folder. Any number of processes may use it at once."""

    def __init__(self, jobs: Path) -> None:
        self.jobs = jobs

    @contextlib.contextmanager
    def create(self, record: Record) -> Iterator[bool]:
        """Write `record` down; within the block this process is known to be submitting it.

        Yields False when a job of that id is there already: then nothing was written, and the
        lock is waited for, so that a submit beside this one has ended.
        """
        folder = self.jobs / record.id
        with as_store_error(f"job {record.id} can't be written down", folder):
            private_folder(self.jobs)
            self._sweep()
            made, lock = self._place(record, folder)
        try:
            yield made
        finally:
            os.close(lock)

    def _place(self, record: Record, folder: Path) -> tuple[bool, int]:
        temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=self.jobs))
        lock = try_lock(temporary / SUBMIT_LOCK)
        assert lock is not None
        try:
            write_whole(temporary / RECORD, _encode(record))
            os.rename(temporary, folder)
        except OSError as error:
            os.close(lock)
            shutil.rmtree(temporary, ignore_errors=True)
            if not folder.is_dir():
                raise error
            return False, _wait_for_lock(folder / SUBMIT_LOCK)
        sync_folder(self.jobs)
        return True, lock

    def _sweep(self) -> None:
        """Remove what a killed submit or delete left half-done."""
        for prefix in (TEMPORARY, TRASH):
            for path in self.jobs.glob(f"{prefix}*"):
                if age_s(path) > LEFT_BEHIND_S and not is_locked(path / SUBMIT_LOCK):
                    shutil.rmtree(path, ignore_errors=True)

    def submitted(self, job_id: str, backend_job_id: str) -> None:
        """Note that the backend has taken the job, and its id there."""
        path = self.jobs / job_id / SUBMITTED
        with as_store_error(f"job {job_id} can't be written down", path):
            write_whole(path, orjson.dumps({"backendJobId": backend_job_id}))

    def get(self, job_id: str) -> Record:
        """One record. Raises JobNotFound, or DamagedJob when its folder can't be read."""
        folder = self.jobs / job_id
        if not job_id or not folder.is_dir():
            raise JobNotFound(f"there is no job {job_id}", fix="`cloudft list` shows the jobs.")
        return _decode(folder)

    def records(self) -> Iterator[Record | DamagedJob]:
        """Every job, newest first; one that can't be read comes, last, as the error it gives."""
        records: list[Record] = []
        damaged: list[DamagedJob] = []
        for job_id in self.ids():
            try:
                records.append(self.get(job_id))
            except DamagedJob as error:
                damaged.append(error)
            except JobNotFound:
                continue  # deleted since the folder was listed
        records.sort(key=lambda record: (record.created_at, record.id), reverse=True)
        yield from records
        yield from damaged

    def ids(self) -> list[str]:
        """The names of all job folders. Raises StoreError when the folder can't be read."""
        with as_store_error("the jobs can't be listed", self.jobs):
            try:
                with os.scandir(self.jobs) as entries:
                    return [e.name for e in entries if e.is_dir() and not e.name.startswith(".")]
            except FileNotFoundError:
                return []

    def find(self, reference: str) -> Record:
        """A job by id, by a unique prefix of its id, by name (the newest), or `-` for the last one.

        Raises JobNotFound, or UsageError when a prefix fits several jobs.
        """
        ids = self.ids()
        if reference in ids:
            return self.get(reference)
        matching = sorted(i for i in ids if reference and i.startswith(reference))
        records = [r for r in self.records() if isinstance(r, Record)]
        chosen = records if reference == "-" else [r for r in records if r.name == reference]
        if chosen:
            return chosen[0]
        if len(matching) == 1:
            return self.get(matching[0])
        if matching:
            raise UsageError(
                f"{reference} fits {len(matching)} jobs: {', '.join(matching[:5])}",
                fix="give more of the id.",
            )
        what = "there is no job yet" if reference == "-" else f"there is no job {reference}"
        raise JobNotFound(what, fix="`cloudft list` shows the jobs.")

    def delete(self, job_id: str) -> None:
        """Remove a job's folder. It goes in one step; a kill leaves nothing that lists."""
        folder = self.jobs / job_id
        if is_locked(folder / SUBMIT_LOCK):
            raise JobStateConflict(f"{job_id} is being submitted", fix="wait a moment.")
        trash = self.jobs / f"{TRASH}{job_id}-{os.getpid()}"
        with as_store_error(f"job {job_id} can't be deleted", folder):
            os.rename(folder, trash)
            shutil.rmtree(trash)


def _wait_for_lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


_KEYS = {
    "id": "id",
    "name": "name",
    "backend": "backend",
    "token": "token",
    "created_at": "createdAt",
    "customization_type": "customizationType",
    "base_model": "baseModel",
    "hyper_parameters": "hyperParameters",
    "request": "request",
    "manifest": "manifest",
    "estimate": "estimate",
    "tags": "tags",
    "spec": "spec",
}


def _encode(record: Record) -> bytes:
    content = {key: getattr(record, name) for name, key in _KEYS.items()}
    return orjson.dumps({"version": VERSION, **content}, option=orjson.OPT_INDENT_2)


def _decode(folder: Path) -> Record:
    path = folder / RECORD
    remedy = f"look at it, or remove the folder {folder}; the other jobs are not affected."
    try:
        content = orjson.loads(path.read_bytes())
        if content["version"] != VERSION:
            raise DamagedJob(
                f"job {folder.name} was written in version {content['version']} of the store; this"
                f" cloudft reads version {VERSION}",
                file=str(path),
                fix="use the cloudft that wrote it.",
            )
        values = {name: content[key] for name, key in _KEYS.items()}
    except OSError as error:
        reason = error.strerror or str(error)
    except (ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
    else:
        return Record(**values, folder=folder, backend_job_id=_backend_job_id(folder))
    raise DamagedJob(
        f"job {folder.name} is damaged: {RECORD} can't be read ({reason})",
        file=str(path),
        fix=remedy,
    )


def _backend_job_id(folder: Path) -> str | None:
    try:
        value: str = orjson.loads((folder / SUBMITTED).read_bytes())["backendJobId"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return value
