"""Many jobs at once: all that this machine knows, and those that others have submitted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cloudft.backends.base import Backend, Finds
from cloudft.errors import AwsRefused, AwsUnreachable, CloudftError, DamagedJob, UsageError
from cloudft.home import Home
from cloudft.jobs import Job, backend_of, look
from cloudft.store import Record, Store
from cloudft.types import JobState, job_id


def adopt(backend: Backend, store: Store) -> list[Record | DamagedJob]:
    """Write down the jobs that were submitted from other machines; returns the new ones.

    One whose plan can't be taken comes as the error that says why; the others are written down.
    """
    if not isinstance(backend, Finds):
        return []
    adopted: list[Record | DamagedJob] = []
    for stranger in backend.strangers(store.ids()):
        if isinstance(stranger, DamagedJob):
            adopted.append(stranger)
            continue
        own_id = job_id(stranger.name, stranger.token)
        record = Record(
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
                store.submitted(own_id, stranger.backend_job_id)
                adopted.append(record)
    return adopted


def all_jobs(
    store: Store, home: Home, backend_name: str | None = None
) -> Iterator[Job | DamagedJob]:
    """Every job (of one backend), newest first; a damaged one comes as its error.

    A backend that many machines share is asked for all of its jobs at once.
    """
    records = [
        record
        for record in store.records()
        if isinstance(record, DamagedJob) or backend_name in (None, record.backend)
    ]
    sound = [record for record in records if isinstance(record, Record)]
    seen = _seen(sound, home)
    for record in records:
        if isinstance(record, DamagedJob):
            yield record
            continue
        found = seen[record.id]
        yield found if isinstance(found, DamagedJob) else Job(record, found)


def _seen(records: Sequence[Record], home: Home) -> dict[str, JobState | DamagedJob]:
    groups: dict[str, list[Record]] = {}
    for record in records:
        place = record.request.get("place", {})
        groups.setdefault(f"{record.backend} {sorted(place.items())}", []).append(record)
    seen: dict[str, JobState | DamagedJob] = {}
    for group in groups.values():
        try:
            backend = backend_of(group[0], home)
            many = backend.describe_many([r.backend_job_id or r.id for r in group])
        except DamagedJob:
            seen |= {record.id: _damage(record, home) for record in group}
            continue
        except (UsageError, AwsRefused, AwsUnreachable) as error:
            seen |= {record.id: _unseen(record, error) for record in group}
            continue
        for record in group:
            state = many.get(record.backend_job_id or record.id)
            seen[record.id] = state or _look_again(record, backend)
    return seen


def _damage(record: Record, home: Home) -> JobState | DamagedJob:
    """What is wrong with the record of a job whose backend can't be had."""
    try:
        return look(record, backend_of(record, home)).state
    except DamagedJob as error:
        return error


def _look_again(record: Record, backend: Backend) -> JobState | DamagedJob:
    """A job that the many did not have: cut off, gone, or damaged."""
    try:
        return look(record, backend).state
    except DamagedJob as error:
        return error
    except CloudftError as error:
        return _unseen(record, error)


def _unseen(record: Record, error: CloudftError) -> DamagedJob:
    return DamagedJob(error.message, job=record.id, fix=error.fix, file=str(record.folder))
