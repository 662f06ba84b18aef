"""Many jobs at once: all that this machine knows, and those that others have submitted."""

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
    """A job that this machine knows and whose account can't be read: its status is not known."""

    record: JobRecord
    unavailable: UnavailablePart

    def to_json(self) -> dict[str, Any]:
        """Return the fields of a job; those that its account would tell are null."""
        unknown = dict.fromkeys(("artifacts", "endedAt", "failureMessage", "progress", "status"))
        empty = JobState(self.record.id, "InProgress", StatusDetails(), self.record.created_at)
        known = Job(self.record, empty).to_json()
        return known | unknown | {"statusDetails": None, "unavailable": to_json(self.unavailable)}


def adopt_untracked_jobs(backend: Backend, store: Store) -> list[JobRecord | DamagedJob]:
    """Write down the jobs that were submitted from other machines; returns the new ones.

    One whose plan can't be taken comes as the error that says why; the others are written down.
    """
    if not isinstance(backend, SupportsDiscovery):
        return []
    adopted: list[JobRecord | DamagedJob] = []
    for stranger in backend.list_untracked(store.job_ids()):
        if isinstance(stranger, DamagedJob):
            adopted.append(stranger)
            continue
        own_id = job_id(stranger.name, stranger.token)
        record = JobRecord(
            id=own_id,
            name=stranger.name,
            backend=backend.name,
            token=stranger.token,
            created_at=stranger.created_at,
            customization_type=stranger.customization_type,
            base_model=stranger.base_model,
            hyper_parameters=stranger.hyper_parameters,
            request=stranger.request,
            manifest=stranger.manifest,
            estimate=stranger.estimate,
            tags=stranger.spec.get("tags", {}),
            spec=stranger.spec,
            folder=store.jobs / own_id,
        )
        with store.create(record) as made:
            if made:
                store.mark_submitted(own_id, stranger.backend_job_id)
                adopted.append(record)
    return adopted


def list_jobs(
    store: Store, home: Home, backend_name: str | None = None
) -> Iterator[Job | UnreachableJob | DamagedJob]:
    """Every job (of one backend), newest first; a damaged one comes as its error.

    A backend that many machines share is asked for all of its jobs at once; where it can't be read,
    they come as what this machine knows of them.
    """
    records = [
        record
        for record in store.iter_records()
        if isinstance(record, DamagedJob) or backend_name in (None, record.backend)
    ]
    sound = [record for record in records if isinstance(record, JobRecord)]
    seen = _describe_all(sound, home)
    for record in records:
        if isinstance(record, DamagedJob):
            yield record
            continue
        found = seen[record.id]
        yield Job(record, found) if isinstance(found, JobState) else found


def _describe_all(
    records: Sequence[JobRecord], home: Home
) -> dict[str, JobState | UnreachableJob | DamagedJob]:
    groups: dict[str, list[JobRecord]] = {}
    for record in records:
        place = record.request.get("place", {})
        groups.setdefault(f"{record.backend} {sorted(place.items())}", []).append(record)
    seen: dict[str, JobState | UnreachableJob | DamagedJob] = {}
    for group in groups.values():
        try:
            backend = backend_for(group[0], home)
            many = backend.describe_many([r.backend_job_id or r.id for r in group])
        except DamagedJob:
            seen |= {record.id: _damage_of(record, home) for record in group}
            continue
        except (CloudRefused, CloudUnreachable) as error:
            part = unavailable_part(
                _account_label(group[0].backend, group[0].request.get("place", {})), error
            )
            seen |= {record.id: UnreachableJob(record, part) for record in group}
            continue
        except UsageError as error:
            seen |= {record.id: _unreadable_job(record, error) for record in group}
            continue
        for record in group:
            state = many.get(record.backend_job_id or record.id)
            seen[record.id] = state or _describe_one(record, backend)
    return seen


def _account_label(backend_name: str, place: Mapping[str, Any]) -> str:
    region = place.get("region")
    return f"the jobs on {backend_name}" + (f" in {region}" if region else "")


def _damage_of(record: JobRecord, home: Home) -> JobState | DamagedJob:
    """What is wrong with the record of a job whose backend can't be had."""
    try:
        return refresh(record, backend_for(record, home)).state
    except DamagedJob as error:
        return error


def _describe_one(record: JobRecord, backend: Backend) -> JobState | UnreachableJob | DamagedJob:
    """A job that the many did not have: cut off, gone, or damaged."""
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
