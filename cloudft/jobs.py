"""The life of a job, once, over any backend.

`submit` writes the intent down before the backend is called. The same job submitted again is the
same job: while it runs, when it is complete, and when a first submit was cut off half-way. One that
failed or was stopped is tried anew, as another job.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudft.backends import backend as backend_by_name
from cloudft.backends.base import Backend, Finds, Quotes, Resumes, StagedJob
from cloudft.errors import (
    AwsQuota,
    JobNotFound,
    JobStateConflict,
)
from cloudft.home import Home
from cloudft.preparing import check_budget
from cloudft.store import Record, Store, utc_now
from cloudft.types import Estimate, JobState, Plan, StatusDetails, to_json


@dataclass(frozen=True)
class Job:
    """A record and one look at it."""

    record: Record
    state: JobState

    def to_json(self) -> dict[str, Any]:
        """The contract's fields of `submit` and `status`."""
        record, state = self.record, self.state
        return {
            "id": record.id,
            "name": record.name,
            "backend": record.backend,
            "status": state.status,
            "statusDetails": to_json(state.status_details),
            "customizationType": record.customization_type,
            "baseModel": record.base_model,
            "hyperParameters": dict(record.hyper_parameters),
            "createdAt": record.created_at,
            "endedAt": state.ended_at,
            "failureMessage": state.failure_message,
            "artifacts": state.artifacts,
            "manifest": dict(record.manifest),
            "cost": self._cost(),
            "tags": dict(record.tags),
            "progress": to_json(state.progress),
            "summary": dict(state.summary),
        }

    def _cost(self) -> dict[str, Any]:
        """What was billed where the backend tells it of an ended job, else the estimate."""
        billed = self.state.summary.get("usd")
        if self.state.ended and billed is not None:
            return {"usd": billed, "estimated": False}
        estimate = self.record.estimate
        bound = {"atMost": True} if estimate.get("atMost") else {}
        return {"usd": estimate["usd"]["training"], "estimated": True, **bound}


def submit(
    staged: StagedJob,
    backend: Backend,
    store: Store,
    *,
    again: bool = False,
    progress: Callable[[int], None] | None = None,
    wait: Callable[[AwsQuota], None] | None = None,
    tell: Callable[[Estimate], None] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Job:
    """Submit a staged job; returns it with its first state.

    `tell` gets the estimate before anything new is sent. `wait` is told of a used-up quota, and the
    job waits for its turn; without it AwsQuota is raised.

    With `again`, a job of the same text that runs or is complete is left alone, and another
    started.
    """
    backend = backend.at(backend.place_of(staged.job))
    told = tell is None
    for attempt in itertools.count():
        plan = backend.plan(dataclasses.replace(staged, attempt=attempt))
        if isinstance(backend, Quotes) and plan.job_id not in store.ids():
            quote = backend.quote(staged.job, plan.estimate)
            plan = dataclasses.replace(plan, estimate=quote)
        if tell is not None and not told and not _was_sent(plan, store):
            tell(plan.estimate)
            told = True
        check_budget(staged.job, plan)
        record = record_of(staged, plan, store)
        _adopt_own(record, plan, backend, store)
        with store.create(record) as made:
            known = record if made else store.get(record.id)
            if not made and known.backend_job_id is not None:
                job = look(known, backend)
                if again or job.state.status in ("Failed", "Stopped"):
                    continue
                return job
            while True:
                try:
                    return _send(known, plan, backend, store, progress)
                except AwsQuota as error:
                    if wait is None:
                        raise
                    wait(error)
                    sleep(backend.poll_seconds)
    raise AssertionError("unreachable")


def _was_sent(plan: Plan, store: Store) -> bool:
    """True when this very job was submitted from here before: it costs nothing more."""
    return plan.job_id in store.ids() and store.get(plan.job_id).backend_job_id is not None


def _adopt_own(record: Record, plan: Plan, backend: Backend, store: Store) -> None:
    """Know a job of this very plan that another machine has submitted."""
    if not isinstance(backend, Finds) or record.id in store.ids():
        return
    there = backend.find(plan)
    if there is not None:
        with store.create(record) as made:
            if made:
                store.submitted(record.id, there)


def _send(
    record: Record,
    plan: Plan,
    backend: Backend,
    store: Store,
    progress: Callable[[int], None] | None,
) -> Job:
    backend_job_id = backend.submit(plan, progress)
    store.submitted(record.id, backend_job_id)
    return look(dataclasses.replace(record, backend_job_id=backend_job_id), backend)


def record_of(staged: StagedJob, plan: Plan, store: Store) -> Record:
    """What the store keeps of a plan."""
    spec = staged.job.spec
    return Record(
        id=plan.job_id,
        name=spec.name,
        backend=plan.backend,
        token=plan.token,
        created_at=utc_now(),
        customization_type=spec.customization_type,
        base_model=spec.base_model,
        hyper_parameters=plan.request["hyperParameters"],
        request=plan.request,
        manifest=to_json(plan.manifest),
        estimate=to_json(plan.estimate),
        tags=spec.tags,
        spec=plan.spec,
        folder=store.jobs / plan.job_id,
    )


def look(record: Record, backend: Backend) -> Job:
    """One look at a job, also at one whose submit was cut off."""
    if record.backend_job_id is not None:
        return Job(record, backend.describe(record.backend_job_id))
    if record.being_submitted:
        return Job(record, _unsubmitted(record, JobState))
    try:
        return Job(record, backend.describe(record.id))
    except JobNotFound:
        return Job(record, _unsubmitted(record, _cut_off))


def _unsubmitted(record: Record, make: Callable[..., JobState]) -> JobState:
    return make(
        id=record.id,
        status="InProgress",
        status_details=StatusDetails(),
        created_at=record.created_at,
    )


def _cut_off(**values: Any) -> JobState:
    return JobState(
        **values
        | {
            "status": "Failed",
            "failure_message": "submit was interrupted before the job was started. Submit it again:"
            " it goes on as this job.",
        }
    )


def backend_of(record: Record, home: Home) -> Backend:
    """The backend that runs this job."""
    place = dict(record.request.get("place", {}))
    if place and os.environ.get("AWS_PROFILE"):  # whoever looks at a job may be someone else
        place["profile"] = None
    backend = backend_by_name(record.backend, home)
    return backend.at(place) if place else backend


def stop(record: Record, backend: Backend) -> None:
    """Ask a job to stop. A job that has ended already is left as it is."""
    backend.stop(record.backend_job_id or record.id)


def resume(record: Record, backend: Backend) -> None:
    """Go on with a stopped or failed job. Raises JobStateConflict where that can't be done."""
    if not isinstance(backend, Resumes):
        raise JobStateConflict(
            f"the backend {record.backend} can't resume a job", fix="submit it again."
        )
    backend.resume(record.backend_job_id or record.id)


def delete(record: Record, backend: Backend, store: Store, *, force: bool = False) -> None:
    """Remove what this machine has of a job. Raises JobStateConflict while it runs.

    Raises JobNotFound for one that its backend does not know: it is gone, or it runs in an account
    that is not looked at. With `force` it is forgotten.
    """
    try:
        state = look(record, backend).state
    except JobNotFound:
        if not force:
            raise
    else:
        if not state.ended:
            fix = f"stop it first: `cloudft stop {record.id}`"
            raise JobStateConflict(f"{record.id} is {state.status}", fix=fix)
    store.delete(record.id)


def artifacts_of(job: Job) -> Path:
    """The folder of a completed job's artifacts. Raises JobStateConflict before that."""
    if job.state.artifacts is None:
        raise JobStateConflict(
            f"{job.record.id} is {job.state.status}: it has left no artifacts",
            fix=f"`cloudft watch {job.record.id}` waits for its end.",
        )
    return Path(job.state.artifacts)
