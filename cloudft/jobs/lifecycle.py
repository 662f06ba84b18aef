"""The life of a job, over any backend: submit, refresh, stop, resume, delete.

`submit` writes the intent to disk before it calls the backend. Submitting the same job again
returns the same job: while it runs, when it has completed, and when the first submit was
interrupted. A job that failed, was stopped, or whose model was removed since is submitted as a new
one.
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

from cloudft.backends import make_backend, running_here
from cloudft.backends.base import Backend, StagedJob
from cloudft.backends.capabilities import SupportsDiscovery, SupportsPricing, SupportsResume
from cloudft.backends.observer import SILENT, RunObserver
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
from cloudft.jobs import teacher_answers
from cloudft.jobs.prepare import check_budget, enforce_budget
from cloudft.jobs.trackers import start_feeding
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
from cloudft.types import MODEL_REMOVED, JobState, Plan, StatusDetails, to_json

INTERRUPTED = (
    "submit was interrupted before the job was started. Submit it again: it continues this job."
)


@dataclass(frozen=True)
class Job:
    """A record and the job's state. `describe_error` says why a created job has no state yet."""

    record: JobRecord
    state: JobState
    describe_error: CloudftError | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields of `submit` and `status` that others rely on."""
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
        """Return what was billed, where the backend knows it of an ended job; else the estimate."""
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
    observer: RunObserver = SILENT,
    sleep: Callable[[float], None] = time.sleep,
) -> Job:
    """Submit a staged job to a backend that is bound to its location; return its first state.

    The observer receives the estimate before anything new is sent. When the account's quota is
    used up, QuotaExceeded is raised, unless the observer's `on_quota_exceeded` returns: then the
    job stays queued. With `force_new`, a job of the same text that runs or has completed is left
    alone, and another one is started.
    """
    is_announced = False
    if teacher_answers.count_missing(staged, backend):
        estimate = backend.plan(staged).estimate
        observer.on_estimate(estimate)
        is_announced = True
        enforce_budget(staged.job, estimate)
        staged = teacher_answers.collect_answers(staged, Home(store.jobs.parent), observer)
    for attempt in itertools.count():
        plan = _plan(dataclasses.replace(staged, attempt=attempt), backend, store)
        if not is_announced and not _was_submitted_here(plan, store):
            observer.on_estimate(plan.estimate)
            is_announced = True
        check_budget(staged.job, plan)
        # The intent is on disk before any call that costs money; a retry finds it by its id.
        record = make_record(staged, plan, store)
        _adopt_submitted_elsewhere(record, plan, backend, store)
        # From here to the end of the block this process holds the job's submit lock.
        with store.create(record) as is_created:
            known = record if is_created else store.get(record.id)
            if not is_created and known.backend_job_id is not None:
                job = refresh(known, backend)
                removed = bool(job.state.summary.get(MODEL_REMOVED))
                if force_new or removed or job.state.status in ("Failed", "Stopped"):
                    continue
                return job
            while True:
                try:
                    return _submit_plan(known, plan, backend, store, observer)
                except QuotaExceeded as error:
                    observer.on_quota_exceeded(error)
                    sleep(backend.poll_seconds)
    raise AssertionError("unreachable")


def _plan(staged: StagedJob, backend: Backend, store: Store) -> Plan:
    """Return the plan of one attempt; at current prices where it would be a new job."""
    plan = backend.plan(staged)
    if isinstance(backend, SupportsPricing) and plan.job_id not in store.job_ids():
        estimate = backend.with_current_prices(staged.job, plan.estimate)
        plan = dataclasses.replace(plan, estimate=estimate)
    return plan


def _was_submitted_here(plan: Plan, store: Store) -> bool:
    """Return whether this machine submitted this exact job before: it costs nothing more."""
    return plan.job_id in store.job_ids() and store.get(plan.job_id).backend_job_id is not None


def _adopt_submitted_elsewhere(
    record: JobRecord, plan: Plan, backend: Backend, store: Store
) -> None:
    """Write the record of a job of this exact plan that another machine has submitted."""
    if not isinstance(backend, SupportsDiscovery) or record.id in store.job_ids():
        return
    backend_job_id = backend.find_submitted(plan)
    if backend_job_id is not None:
        with store.create(record) as is_created:
            if is_created:
                store.mark_submitted(record.id, backend_job_id)


def _submit_plan(
    record: JobRecord, plan: Plan, backend: Backend, store: Store, observer: RunObserver
) -> Job:
    if isinstance(backend, SupportsDiscovery):  # other machines list this job too: it is ours
        SubmittedJobs(store.jobs).add(record.id)
    backend_job_id = backend.submit(plan, observer)
    store.mark_submitted(record.id, backend_job_id)
    record = dataclasses.replace(record, backend_job_id=backend_job_id)
    try:
        return refresh(record, backend)
    except (CloudRefused, CloudUnreachable, JobNotFound) as error:  # it was created all the same
        return Job(record, _unsubmitted_state(record), error)


def make_record(staged: StagedJob, plan: Plan, store: Store) -> JobRecord:
    """Return what the store keeps of a plan."""
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
    """Return the job with its current state, also one whose submit was interrupted."""
    if record.backend_job_id is not None:
        return Job(record, backend.describe(record.backend_job_id))
    if record.is_being_submitted:
        return Job(record, _unsubmitted_state(record))
    try:
        return Job(record, backend.describe(record.id))
    except JobNotFound:
        state = _unsubmitted_state(record)
        failed = dataclasses.replace(state, status="Failed", failure_message=INTERRUPTED)
        return Job(record, failed)


def _unsubmitted_state(record: JobRecord) -> JobState:
    return JobState(
        id=record.id,
        status="InProgress",
        status_details=StatusDetails(),
        created_at=record.created_at,
    )


def backend_for(record: JobRecord, home: Home) -> Backend:
    """Return the backend that runs this job, bound to the location of its record.

    Raise DamagedJob for a record that names no known backend, or an id that can't be its own.
    """
    location = dict(record.request.get("place", {}))
    if location and os.environ.get("AWS_PROFILE"):  # who looks at a job may be someone else
        location["profile"] = None
    try:
        backend = make_backend(record.backend, home)
    except UsageError as error:
        why = f"{error.message}; this cloudft has others"
        raise damaged_job(record.folder / RECORD_FILE, why, "backend") from error
    if backend.keeps_job_id and record.backend_job_id not in (None, record.id):
        why = f"a {record.backend} job has its own id in the backend, not {record.backend_job_id}"
        raise damaged_job(record.folder / SUBMITTED_FILE, why, "backendJobId")
    return backend.bind(location) if location else backend


def stop(record: JobRecord, backend: Backend) -> None:
    """Request that a job stop. Does nothing for a job that has ended."""
    backend.stop(record.backend_job_id or record.id)


def resume(record: JobRecord, backend: Backend) -> None:
    """Resume a stopped or failed job. Raise JobStateConflict where that is impossible."""
    if not isinstance(backend, SupportsResume):
        raise JobStateConflict(
            f"the backend {record.backend} can't resume a job", fix="submit it again."
        )
    backend.resume(record.backend_job_id or record.id)
    start_feeding(record)


def delete(record: JobRecord, backend: Backend, store: Store, *, force: bool = False) -> None:
    """Remove what this machine has of a job. Raise JobStateConflict while it runs.

    Raise JobNotFound for a job that its backend does not know: it is gone, or it runs in another
    account. With `force`, such a job is forgotten.
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

    Raise JobStateConflict, unless with `force`, while it may still run: where its process on this
    machine is alive, and where nothing shows that it ran on this machine.
    """
    assert error.job is not None
    is_running = running_here(store.jobs / error.job)
    if not force and is_running is not False:
        why = "its trainer runs" if is_running else "it may run on AWS, where it continues"
        raise JobStateConflict(
            f"{error.message}, and {why}",
            file=error.file,
            field=error.field,
            fix=f"remove it all the same: cloudft delete {error.job} --force",
        )
    store.delete(error.job)


def require_artifacts(job: Job) -> Path:
    """Return the folder of a completed job's artifacts. Raise JobStateConflict before that."""
    if job.state.artifacts is None:
        raise JobStateConflict(
            f"{job.record.id} is {job.state.status}: it has left no artifacts",
            fix=f"`cloudft watch {job.record.id}` waits for its end.",
        )
    return Path(job.state.artifacts)
