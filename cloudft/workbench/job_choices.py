"""The jobs that a page offers to choose from."""

from __future__ import annotations

from collections.abc import Collection

from cloudft.storage.side_jobs import without_side_jobs
from cloudft.workbench.job_states import JobStates, KnownJob


def list_choices(states: JobStates, chosen: Collection[str] = ()) -> list[KnownJob]:
    """Return the jobs to choose from, newest first: no side jobs, unless they are `chosen`.

    Raise StoreError.
    """
    known = [one for one in states.list_jobs() if isinstance(one, KnownJob)]
    kept = {record.id for record in without_side_jobs([one.record for one in known])}
    return [one for one in known if one.record.id in kept or one.record.id in chosen]
