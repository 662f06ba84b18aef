"""The life of a job, once, over any backend.

`submit` writes the intent down before the backend is called. The same job submitted again is the
same job: while it runs, when it is complete, and when a first submit was cut off half-way. One that
failed or was stopped, or whose model was removed since, is tried anew, as another job.
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

from cloudft.backends import make_backend as backend_by_name
from cloudft.backends.base import Backend, StagedJob
from cloudft.backends.capabilities import SupportsDiscovery, SupportsPricing, SupportsResume
from cloudft.backends.local.job_folder import LOCK
from cloudft.errors import (
    CloudftError,
    CloudRefused,
    CloudUnreachable,
    DamagedJob,
    JobNotFound,
    JobStateConflict,
    QuotaExceeded,
    UsageError,
)
from cloudft.jobs.prepare import check_budget
from cloudft.storage.atomic_files import is_locked
from cloudft.storage.home import Home
from cloudft.storage.ledger import SubmittedJobs
from cloudft.storage.store import (
    RECORD_FILE,
    SUBMITTED_FILE,
    JobRecord,
    Store,
    damaged_job,
    utc_now,
)
from cloudft.types import MODEL_REMOVED, Estimate, JobState, Plan, StatusDetails, to_json


@dataclass(frozen=True)
class Job:
    """A record and one look at it; with `unseen`, why there could be none after its creation."""

    record: JobRecord
    state: JobState
    describe_error: CloudftError | None = None

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
        if self.state.has_ended and billed is not None:
            return {"usd": billed, "estimated": False}
        estimate = self.record.estimate
        bound = {"atMost": True} if estimate.get("atMost") else {}
        return {"usd": estimate["usd"]["training"], "estimated": True, **bound}


def submit(
    staged: StagedJob,
    backend: Backend,
    store: Store,
    *,
    force_new: bool = False,
    on_progress: Callable[[int], None] | None = None,
    on_quota_exceeded: Callable[[QuotaExceeded], None] | None = None,
    on_estimate: Callable[[Estimate], None] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Job:
    """Submit a staged job; returns it with its first state.

    `tell` gets the estimate before anything new is sent. `wait` is told of a used-up quota, and the
    job waits for its turn; without it AwsQuota is raised.

    With `again`, a job of the same text that runs or is complete is left alone, and another
    started.
    """
    backend = backend.bind(backend.location_of(staged.job))
    told = on_estimate is None
    for attempt in itertools.count():
        plan = backend.plan(dataclasses.replace(staged, attempt=attempt))
        if isinstance(backend, SupportsPricing) and plan.job_id not in store.job_ids():
            quote = backend.with_current_prices(staged.job, plan.estimate)
            plan = dataclasses.replace(plan, estimate=quote)
        if on_estimate is not None and not told and not _was_submitted_here(plan, store):
            on_estimate(plan.estimate)
            told = True
        check_budget(staged.job, plan)
        record = make_record(staged, plan, store)
        _adopt_submitted_elsewhere(record, plan, backend, store)
        with store.create(record) as made:
            known = record if made else store.get(record.id)
            if not made and known.backend_job_id is not None:
                job = refresh(known, backend)
                removed = bool(job.state.summary.get(MODEL_REMOVED))
                if force_new or removed or job.state.status in ("Failed", "Stopped"):
                    continue
                return job
            while True:
                try:
                    return _submit_plan(known, plan, backend, store, on_progress)
                except QuotaExceeded as error:
                    if on_quota_exceeded is None:
                        raise
                    on_quota_exceeded(error)
                    sleep(backend.poll_seconds)
    raise AssertionError("unreachable")


def _was_submitted_here(plan: Plan, store: Store) -> bool:
    """True when this very job was submitted from here before: it costs nothing more."""
    return plan.job_id in store.job_ids() and store.get(plan.job_id).backend_job_id is not None


def _adopt_submitted_elsewhere(
    record: JobRecord, plan: Plan, backend: Backend, store: Store
) -> None:
    """Know a job of this very plan that another machine has submitted."""
    if not isinstance(backend, SupportsDiscovery) or record.id in store.job_ids():
        return
    there = backend.find_submitted(plan)
    if there is not None:
        with store.create(record) as made:
            if made:
                store.mark_submitted(record.id, there)


def _submit_plan(
    record: JobRecord,
    plan: Plan,
    backend: Backend,
    store: Store,
    progress: Callable[[int], None] | None,
) -> Job:
    if isinstance(backend, SupportsDiscovery):  # others see the job, too: it is ours
        SubmittedJobs(store.jobs).add(record.id)
    backend_job_id = backend.submit(plan, progress)
    store.mark_submitted(record.id, backend_job_id)
    record = dataclasses.replace(record, backend_job_id=backend_job_id)
    try:
        return refresh(record, backend)
    except (CloudRefused, CloudUnreachable, JobNotFound) as error:  # it was created all the same
        return Job(record, _unsubmitted_state(record, JobState), error)


def make_record(staged: StagedJob, plan: Plan, store: Store) -> JobRecord:
    """What the store keeps of a plan."""
    spec = staged.job.spec
    return JobRecord(
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


def refresh(record: JobRecord, backend: Backend) -> Job:
    """One look at a job, also at one whose submit was cut off."""
    if record.backend_job_id is not None:
        return Job(record, backend.describe(record.backend_job_id))
    if record.is_being_submitted:
        return Job(record, _unsubmitted_state(record, JobState))
    try:
        return Job(record, backend.describe(record.id))
    except JobNotFound:
        return Job(record, _unsubmitted_state(record, _interrupted_state))


def _unsubmitted_state(record: JobRecord, make: Callable[..., JobState]) -> JobState:
    return make(
        id=record.id,
        status="InProgress",
        status_details=StatusDetails(),
        created_at=record.created_at,
    )


def _interrupted_state(**values: Any) -> JobState:
    return JobState(
        **values
        | {
            "status": "Failed",
            "failure_message": "submit was interrupted before the job was started. Submit it again:"
            " it goes on as this job.",
        }
    )


def backend_for(record: JobRecord, home: Home) -> Backend:
    """The backend that runs this job."""
    place = dict(record.request.get("place", {}))
    if place and os.environ.get("AWS_PROFILE"):  # whoever looks at a job may be someone else
        place["profile"] = None
    try:
        backend = backend_by_name(record.backend, home)
    except UsageError as error:
        why = f"{error.message}; this cloudft knows others"
        raise damaged_job(record.folder / RECORD_FILE, why, "backend") from error
    if record.backend == "local" and record.backend_job_id not in (None, record.id):
        why = f"a local job is known by its own id, not by {record.backend_job_id}"
        raise damaged_job(record.folder / SUBMITTED_FILE, why, "backendJobId")
    return backend.bind(place) if place else backend


def stop(record: JobRecord, backend: Backend) -> None:
    """Ask a job to stop. A job that has ended already is left as it is."""
    backend.stop(record.backend_job_id or record.id)


def resume(record: JobRecord, backend: Backend) -> None:
    """Go on with a stopped or failed job. Raises JobStateConflict where that can't be done."""
    if not isinstance(backend, SupportsResume):
        raise JobStateConflict(
            f"the backend {record.backend} can't resume a job", fix="submit it again."
        )
    backend.resume(record.backend_job_id or record.id)


def delete(record: JobRecord, backend: Backend, store: Store, *, force: bool = False) -> None:
    """Remove what this machine has of a job. Raises JobStateConflict while it runs.

    Raises JobNotFound for one that its backend does not know: it is gone, or it runs in an account
    that is not looked at. With `force` it is forgotten.
    """
    try:
        state = refresh(record, backend).state
    except JobNotFound:
        if not force:
            raise
    else:
        if not state.has_ended:
            fix = f"stop it first: `cloudft stop {record.id}`"
            raise JobStateConflict(f"{record.id} is {state.status}", fix=fix)
    store.delete(record.id)


def delete_damaged(error: DamagedJob, store: Store, *, force: bool = False) -> None:
    """Remove the folder of a job that can't be read, and nothing else.

    Raises JobStateConflict, unless with `force`, while it may still run: where a trainer holds its
    lock, or where nothing says that it ran on this machine.
    """
    assert error.job is not None
    lock = store.jobs / error.job / LOCK
    local = lock.exists()
    if not force and (is_locked(lock) or not local):
        why = "its trainer runs" if local else "it may run on AWS, where it goes on"
        raise JobStateConflict(
            f"{error.message}, and {why}",
            file=error.file,
            field=error.field,
            fix=f"remove it all the same: cloudft delete {error.job} --force",
        )
    store.delete(error.job)


def require_artifacts(job: Job) -> Path:
    """The folder of a completed job's artifacts. Raises JobStateConflict before that."""
    if job.state.artifacts is None:
        raise JobStateConflict(
            f"{job.record.id} is {job.state.status}: it has left no artifacts",
            fix=f"`cloudft watch {job.record.id}` waits for its end.",
        )
    return Path(job.state.artifacts)
