"""Many jobs at once: all that this machine knows, and those that other machines submitted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloudft.backends.base import Backend
from cloudft.backends.capabilities import SupportsDiscovery
from cloudft.backends.partial_listing import unavailable_part
from cloudft.errors import (
    CloudftError,
    CloudRefused,
    CloudUnreachable,
    DamagedJob,
    ResourceNotFound,
    UsageError,
)
from cloudft.jobs.lifecycle import Job, backend_for, refresh
from cloudft.storage.home import Home
from cloudft.storage.store import JobRecord, Store
from cloudft.types import JobState, StatusDetails, UnavailablePart, job_id, to_json


@dataclass(frozen=True)
class UnreachableJob:
    """A job whose account can't be read, so that its status is unknown."""

    record: JobRecord
    unavailable: UnavailablePart

    def to_json(self) -> dict[str, Any]:
        """Return the fields of a job; those that only the account knows are null."""
        unknown = dict.fromkeys(("artifacts", "endedAt", "failureMessage", "progress", "status"))
        empty = JobState(self.record.id, "InProgress", StatusDetails(), self.record.created_at)
        known = Job(self.record, empty).to_json()
        return known | unknown | {"statusDetails": None, "unavailable": to_json(self.unavailable)}


def adopt_untracked_jobs(backend: Backend, store: Store) -> list[JobRecord | DamagedJob]:
    """Save the records of jobs that other machines submitted; return the new ones.

    A job whose plan is not acceptable is returned as the error that says why; the others are saved.
    """
    if not isinstance(backend, SupportsDiscovery):
        return []
    adopted: list[JobRecord | DamagedJob] = []
    for discovered in backend.list_untracked(store.job_ids()):
        if isinstance(discovered, DamagedJob):
            adopted.append(discovered)
            continue
        own_id = job_id(discovered.name, discovered.token)
        record = JobRecord(
            id=own_id,
            name=discovered.name,
            backend=backend.name,
            token=discovered.token,
            created_at=discovered.created_at,
            customization_type=discovered.customization_type,
            base_model=discovered.base_model,
            hyper_parameters=discovered.hyper_parameters,
            request=discovered.request,
            manifest=discovered.manifest,
            estimate=discovered.estimate,
            tags=discovered.spec.get("tags", {}),
            spec=discovered.spec,
            folder=store.jobs / own_id,
        )
        with store.create(record) as is_created:
            if is_created:
                store.mark_submitted(own_id, discovered.backend_job_id)
                adopted.append(record)
    return adopted


def list_jobs(
    store: Store, home: Home, backend_name: str | None = None
) -> Iterator[Job | UnreachableJob | DamagedJob]:
    """Yield every job (of one backend), newest first; a damaged one as its error.

    A backend that many machines share is queried for all of its jobs at once. Where it can't be
    read, its jobs are yielded with what this machine knows of them.
    """
    records = [
        record
        for record in store.iter_records()
        if isinstance(record, DamagedJob) or backend_name in (None, record.backend)
    ]
    sound = [record for record in records if isinstance(record, JobRecord)]
    states = describe_all(sound, home)
    for record in records:
        if isinstance(record, DamagedJob):
            yield record
            continue
        state = states[record.id]
        yield Job(record, state) if isinstance(state, JobState) else state


def describe_all(
    records: Sequence[JobRecord], home: Home
) -> dict[str, JobState | UnreachableJob | DamagedJob]:
    """Return the state of each job by its id, with one query for all jobs of a location."""
    groups: dict[str, list[JobRecord]] = {}
    for record in records:
        location = record.request.get("place", {})
        groups.setdefault(f"{record.backend} {sorted(location.items())}", []).append(record)
    states: dict[str, JobState | UnreachableJob | DamagedJob] = {}
    for group in groups.values():
        try:
            backend = backend_for(group[0], home)
            many = backend.describe_many([r.backend_job_id or r.id for r in group])
        except DamagedJob:
            states |= {record.id: _damage_of(record, home) for record in group}
            continue
        except (CloudRefused, CloudUnreachable) as error:
            part = unavailable_part(
                _account_label(group[0].backend, group[0].request.get("place", {})), error
            )
            states |= {record.id: UnreachableJob(record, part) for record in group}
            continue
        except UsageError as error:
            states |= {record.id: _unreadable_job(record, error) for record in group}
            continue
        for record in group:
            state = many.get(record.backend_job_id or record.id)
            states[record.id] = state or _describe_one(record, backend)
    return states


def _account_label(backend_name: str, location: Mapping[str, str | None]) -> str:
    region = location.get("region")
    return f"the jobs on {backend_name}" + (f" in {region}" if region else "")


def _damage_of(record: JobRecord, home: Home) -> JobState | DamagedJob:
    """Return the error of a job whose record names no usable backend."""
    try:
        return refresh(record, backend_for(record, home)).state
    except DamagedJob as error:
        return error


def _describe_one(record: JobRecord, backend: Backend) -> JobState | UnreachableJob | DamagedJob:
    """Describe a job that the list of many did not have: interrupted, gone, or damaged."""
    try:
        return refresh(record, backend).state
    except DamagedJob as error:
        return error
    except ResourceNotFound as error:
        return _unreadable_job(record, error)
    except (CloudRefused, CloudUnreachable) as error:
        return UnreachableJob(record, unavailable_part(f"the job {record.id}", error))
    except CloudftError as error:
        return _unreadable_job(record, error)


def _unreadable_job(record: JobRecord, error: CloudftError) -> DamagedJob:
    return DamagedJob(error.message, job=record.id, fix=error.fix, file=str(record.folder))
