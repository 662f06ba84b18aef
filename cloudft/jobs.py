"""The life of a job, once, over any backend.

`submit` writes the intent down before the backend is called. The same job submitted again is the
same job: while it runs, when it is complete, and when a first submit was cut off half-way. One that
failed or was stopped is tried anew, as another job.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudft.backends import REGISTRY
from cloudft.backends import backend as backend_by_name
from cloudft.backends.base import Backend, Finds, Probes, Quotes, Resumes, StagedJob
from cloudft.data.examine import Examined, examine
from cloudft.data.rules import Rules
from cloudft.data.stage import stage
from cloudft.errors import (
    AwsQuota,
    AwsRefused,
    AwsUnreachable,
    CheckFailed,
    CloudftError,
    CredentialsExpired,
    JobNotFound,
    JobStateConflict,
    OverBudget,
    WaitTimeout,
)
from cloudft.home import Home
from cloudft.spec.load import LoadedJob
from cloudft.store import Record, Store, utc_now
from cloudft.types import Estimate, Finding, JobState, Plan, StatusDetails, Volume, to_json

RARER = 1.3
"""How much longer the next wait is when a look has shown nothing new."""


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


@dataclass(frozen=True)
class Checked:
    """What `check` found. `volumes` is the data by role, None when there are errors in it."""

    findings: tuple[Finding, ...]
    volumes: Mapping[str, Volume] | None
    estimate: Estimate | None

    @property
    def ok(self) -> bool:
        """True when no finding is an error."""
        return not any(finding.severity == "error" for finding in self.findings)


def _format(job: LoadedJob) -> str:
    """The form of record that the base model takes."""
    return job.model.formats[job.spec.customization_type]


def _rules(job: LoadedJob) -> Rules:
    """What the base model asks of the data, whatever the backend."""
    batch = job.spec.hyperparameters.get("batchSize")
    if batch is None:
        default = job.model.hyperparameters.get("batchSize")
        batch = default.default if default else 1
    return Rules.of(job.model, job.spec.customization_type, int(batch))


def _examined(job: LoadedJob, progress: Callable[[int], None] | None) -> Examined:
    return examine(
        job.spec.data,
        format=_format(job),
        base_dir=job.base_dir,
        progress=progress,
        rules=_rules(job),
    )


def check(
    job: LoadedJob, backend: Backend, progress: Callable[[int], None] | None = None
) -> Checked:
    """Everything that is wrong with a job, at once. Nothing is sent and nothing is kept."""
    examined = _examined(job, progress)
    findings = (*job.findings, *examined.findings, *_told(job, backend))
    volumes = examined.volumes
    return Checked(findings, volumes, backend.estimate(job, volumes) if volumes else None)


def _told(job: LoadedJob, backend: Backend) -> Sequence[Finding]:
    """What the backend finds. Where the account may not be asked for what is unsaid: that."""
    try:
        return backend.check(backend.completed(job))
    except CheckFailed as error:  # and what can be said without what is missing
        rest = [finding for finding in backend.check(job) if finding.code != "MissingValue"]
        return [*error.findings, *rest]
    except (AwsRefused, AwsUnreachable) as error:
        place = (error.file, error.line, error.field)
        return [Finding("warning", "CouldNotCheck", error.message, error.fix or "", *place)]


def probed(
    job: LoadedJob,
    home: Home,
    steps: int,
    progress: Callable[[int], None] | None = None,
    probing: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[Estimate]:
    """What the job takes on every backend that can begin with it, from so many of its steps.

    Raises CheckFailed when it could not be submitted there, TrainerError.
    """
    found = []
    for backend in (backend_by_name(name, home) for name in REGISTRY):
        if isinstance(backend, Probes):
            staged, _ = prepare(job, backend, home, progress)
            found.append(backend.probe(staged, steps, probing))
    return found


def estimates(
    job: LoadedJob,
    home: Home,
    progress: Callable[[int], None] | None = None,
    only: str | None = None,
) -> list[Estimate]:
    """What the job would take on every backend, or on one. Raises CheckFailed for wrong data."""
    examined = _examined(job, progress)
    if examined.volumes is None:
        errors = [f for f in examined.findings if f.severity == "error"]
        raise CheckFailed(errors[0].message, examined.findings)
    volumes = examined.volumes
    names = REGISTRY if only is None else [only]
    return [_quoted(job, backend_by_name(name, home), volumes) for name in names]


def _quoted(job: LoadedJob, backend: Backend, volumes: Mapping[str, Volume]) -> Estimate:
    found = backend.estimate(job, volumes)
    return backend.quote(job, found) if isinstance(backend, Quotes) else found


def prepare(
    job: LoadedJob, backend: Backend, home: Home, progress: Callable[[int], None] | None = None
) -> tuple[StagedJob, tuple[Finding, ...]]:
    """Stage the data, check with the backend. Raises CheckFailed; returns the warnings too.

    The staged job is the completed one; AwsRefused and AwsUnreachable where that can't be had.
    """
    job = backend.completed(job)
    findings = [*job.findings, *backend.check(job)]
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        raise CheckFailed(errors[0].message, findings)
    staged = stage(
        job.spec.data,
        customization_type=job.spec.customization_type,
        format=_format(job),
        seed=job.spec.seed,
        base_dir=job.base_dir,
        root=home.staged,
        progress=progress,
        rules=_rules(job),
    )
    return StagedJob(job, staged.manifest, staged.folder), (*findings, *staged.findings)


def check_budget(job: LoadedJob, plan: Plan) -> None:
    """Raise OverBudget when the plan costs more than the job file allows."""
    budget, cost = job.spec.budget_usd, plan.estimate.usd["training"]
    if budget is None:
        return
    place = {
        "field": "budget_usd",
        "line": job.line_of("budget_usd"),
        "file": str(job.path) if job.path else None,
    }
    if cost is None:
        raise OverBudget(
            f"no price is known for training {job.model.alias}, so the budget of {budget:.2f} USD"
            " can't be held",
            fix="look the price up, then remove budget_usd to submit without a limit.",
            **place,  # type: ignore[arg-type]
        )
    if cost > budget:
        raise OverBudget(
            f"the estimate is {cost:.2f} USD, above the budget of {budget:.2f} USD",
            **place,  # type: ignore[arg-type]
            fix="train on less data or fewer epochs, or raise budget_usd."
            if not plan.estimate.at_most
            else f"lower {plan.backend}.max_runtime_seconds (without it the job may run as long as"
            " the budget pays), or raise budget_usd.",
        )


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


def follow(
    look_once: Callable[[], JobState],
    *,
    timeout: float | None = None,
    poll: float = 30.0,
    longest: float | None = None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[JobState]:
    """One look each `poll` seconds until the job has ended. Raises WaitTimeout after `timeout`.

    While nothing changes the looks become rarer, down to one in `longest` seconds.
    """
    end = None if timeout is None else clock() + timeout
    shortest, last = poll, None
    while True:
        state = look_once()
        yield state
        unchanged = last is not None and state == last
        poll = min(max(shortest, longest or 0.0), poll * RARER) if unchanged else shortest
        last = state
        if state.ended:
            return
        if end is not None and clock() >= end:
            raise WaitTimeout(
                f"{state.id} is still {state.status}; it goes on",
                fix=f"`cloudft watch {state.id}` follows it, `cloudft stop {state.id}` ends it.",
            )
        sleep(poll if end is None else min(poll, max(0.0, end - clock())))


def patiently(
    look_once: Callable[[], JobState], say: Callable[[CloudftError], None]
) -> Callable[[], JobState]:
    """A look that outlasts expired credentials and a broken network: it gives the last state.

    `say` is told each trouble once. The first look must succeed.
    """
    last: list[JobState] = []
    told: set[type[CloudftError]] = set()

    def look() -> JobState:
        try:
            last[:] = [look_once()]
            told.clear()
        except (CredentialsExpired, AwsUnreachable) as error:
            if not last:
                raise
            if type(error) not in told:
                say(error)
                told.add(type(error))
        return last[0]

    return look


def wait(
    backend: Backend,
    job_id: str,
    *,
    timeout: float | None = None,
    poll: float = 30.0,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> JobState:
    """The state in which the job ended. Raises WaitTimeout; the job goes on."""
    states = follow(
        lambda: backend.describe(job_id), timeout=timeout, poll=poll, sleep=sleep, clock=clock
    )
    return deque(states, maxlen=1)[0]


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


def delete(record: Record, backend: Backend, store: Store) -> None:
    """Remove what this machine has of a job. Raises JobStateConflict while it runs.

    One that its backend does not know (any more) is a memory alone, and goes.
    """
    with contextlib.suppress(JobNotFound):
        job = look(record, backend)
        if not job.state.ended:
            raise JobStateConflict(
                f"{record.id} is {job.state.status}",
                fix=f"stop it first: cloudft stop {record.id}",
            )
    store.delete(record.id)


def artifacts_of(job: Job) -> Path:
    """The folder of a completed job's artifacts. Raises JobStateConflict before that."""
    if job.state.artifacts is None:
        raise JobStateConflict(
            f"{job.record.id} is {job.state.status}: it has left no artifacts",
            fix="`cloudft watch` waits for its end.",
        )
    return Path(job.state.artifacts)
