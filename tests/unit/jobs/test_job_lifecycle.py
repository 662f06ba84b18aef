"""The life of a job over any backend: here a fake one that does what the test sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from processes import JobFile

from cloudft.backends.base import Backend, StagedJob
from cloudft.backends.observer import SILENT, RunObserver
from cloudft.errors import (
    CheckFailed,
    CloudUnreachable,
    DamagedJob,
    JobNotFound,
    JobStateConflict,
    OverBudget,
    QuotaExceeded,
    WaitTimeout,
)
from cloudft.jobs import lifecycle, listing, prepare, wait
from cloudft.spec.load import LoadedJob, load_job
from cloudft.storage.home import Home
from cloudft.storage.store import Store
from cloudft.types import (
    DataVolume,
    Estimate,
    Finding,
    JobState,
    LogLine,
    Metric,
    Plan,
    Status,
    StatusDetails,
)


class FakeBackend(Backend):
    """Keeps the plans that it was sent; its jobs have the status that the test sets."""

    name = "local"

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.status: dict[str, Status] = {}
        self.findings: list[Finding] = []
        self.stopped: list[str] = []
        self.usd = 0.0
        self.breaks_off: str | None = None
        self.full = 0

    def check(self, job: LoadedJob) -> list[Finding]:
        return self.findings

    def estimate(self, job: LoadedJob, volumes: Mapping[str, DataVolume]) -> Estimate:
        tokens = volumes["train"].tokens
        return Estimate(self.name, tokens, 1, {"training": self.usd}, None, "a test", "")

    def plan(self, staged: StagedJob) -> Plan:
        token = f"{staged.attempt}{staged.manifest.sha256[:31]}"
        return Plan(
            backend=self.name,
            token=token,
            name=staged.job.spec.name,
            request={"hyperParameters": {"epochCount": 1}, "attempt": staged.attempt},
            files={},
            manifest=staged.manifest,
            estimate=self.estimate(staged.job, staged.manifest.files),
        )

    def submit(self, plan: Plan, observer: RunObserver = SILENT) -> str:
        job_id = f"{plan.name}-{plan.token[:8]}"
        if self.breaks_off == "before":
            raise KeyboardInterrupt
        if self.full > 0:
            self.full -= 1
            raise QuotaExceeded("two jobs run")
        if job_id not in self.sent:
            self.sent.append(job_id)
            self.status[job_id] = "InProgress"
        if self.breaks_off == "after":
            raise KeyboardInterrupt
        return job_id

    def describe(self, job_id: str) -> JobState:
        if job_id not in self.status:
            raise JobNotFound(f"there is no job {job_id}")
        status = self.status[job_id]
        return JobState(job_id, status, StatusDetails(), "2026-01-02T03:04:05+00:00")

    def metrics(self, job_id: str) -> Iterator[Metric]:
        return iter(())

    def logs(self, job_id: str, after: str | None = None) -> Iterator[LogLine]:
        return iter(())

    def stop(self, job_id: str) -> None:
        self.stopped.append(job_id)

    def download_artifacts(
        self, job_id: str, to: Path, on_copied: Callable[[int], None] | None = None
    ) -> Path:
        return to


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def store(home: Path) -> Store:
    return Store(home / "jobs")


def prepared(job_file: JobFile, backend: Backend, **options: Any) -> StagedJob:
    """Stage the job of a job file with these options."""
    return prepare.prepare(load_job(job_file(**options)), backend, Home.from_environ())[0]


@pytest.fixture
def staged(job_file: JobFile, backend: FakeBackend) -> StagedJob:
    return prepared(job_file, backend)


@pytest.mark.parametrize("status", ["InProgress", "Stopping", "Completed"])
def test_the_same_job_submitted_twice_is_one_job(
    staged: StagedJob, backend: FakeBackend, store: Store, status: Status
) -> None:
    first = lifecycle.submit(staged, backend, store)
    backend.status[first.record.id] = status
    second = lifecycle.submit(staged, backend, store)
    assert (second.record.id, second.state.status) == (first.record.id, status)
    assert backend.sent == store.job_ids() == [first.record.id]


@pytest.mark.parametrize("status", ["Failed", "Stopped"])
def test_a_job_that_failed_or_was_stopped_is_submitted_as_another_job(
    staged: StagedJob, backend: FakeBackend, store: Store, status: Status
) -> None:
    first = lifecycle.submit(staged, backend, store)
    backend.status[first.record.id] = status
    second = lifecycle.submit(staged, backend, store)
    third = lifecycle.submit(staged, backend, store)
    assert second.record.id != first.record.id
    assert third.record.id == second.record.id
    assert backend.sent == [first.record.id, second.record.id]
    assert second.record.request["attempt"] == 1


def test_again_starts_another_beside_one_that_runs(
    staged: StagedJob, backend: FakeBackend, store: Store
) -> None:
    ids = [lifecycle.submit(staged, backend, store, force_new=True).record.id for _ in range(3)]
    assert len(set(ids)) == 3
    assert backend.sent == ids


def test_other_data_or_another_name_is_another_job(
    job_file: JobFile, backend: FakeBackend, store: Store
) -> None:
    variants: list[dict[str, Any]] = [{}, {"records": 17}, {"name": "other"}]
    for options in variants:
        lifecycle.submit(prepared(job_file, backend, **options), backend, store)
    assert len(set(backend.sent)) == 3


@pytest.mark.parametrize("where", ["before", "after"])
def test_an_interrupted_submit_continues_as_the_same_job(
    staged: StagedJob, backend: FakeBackend, store: Store, where: str
) -> None:
    backend.breaks_off = where
    with pytest.raises(KeyboardInterrupt):
        lifecycle.submit(staged, backend, store)
    [record] = [r for r in store.iter_records() if not isinstance(r, DamagedJob)]
    assert record.backend_job_id is None
    state = lifecycle.refresh(record, backend).state
    if where == "before":
        assert state.status == "Failed"
        assert "submit was interrupted" in str(state.failure_message)
    else:
        assert state.status == "InProgress", "the backend knows it by the id in the intent"

    backend.breaks_off = None
    job = lifecycle.submit(staged, backend, store)
    assert job.record.id == record.id
    assert job.state.status == "InProgress"
    assert backend.sent == store.job_ids() == [record.id]
    assert store.get(record.id).backend_job_id == record.id


def test_a_plan_above_the_budget_is_refused_before_anything_is_kept(
    job_file: JobFile, backend: FakeBackend, store: Store
) -> None:
    backend.usd = 50.01
    staged = prepared(job_file, backend, budget_usd=50)
    with pytest.raises(OverBudget, match=r"50\.01 USD, above the budget of 50\.00 USD") as over:
        lifecycle.submit(staged, backend, store)
    assert over.value.exit_code == 6
    path = staged.job.path
    assert path is not None and over.value.line is not None
    assert path.read_text().splitlines()[over.value.line - 1].startswith("budget_usd:")
    assert backend.sent == store.job_ids() == []
    backend.usd = 50.0
    lifecycle.submit(staged, backend, store)


def test_what_the_backend_finds_stops_the_job_before_its_data_is_staged(
    job_file: JobFile, backend: FakeBackend, home: Path
) -> None:
    backend.findings = [
        Finding("warning", "W", "careful"),
        Finding("error", "E1", "no device", "buy one"),
        Finding("error", "E2", "no weights"),
    ]
    with pytest.raises(CheckFailed, match="no device") as failed:
        prepared(job_file, backend)
    assert [finding.code for finding in failed.value.findings] == ["W", "E1", "E2"]
    assert failed.value.fix == "buy one"
    assert not (home / "staged").exists()


def test_submit_shows_every_fault_that_check_shows_in_one_error(
    job_file: JobFile, backend: FakeBackend, home: Path
) -> None:
    backend.findings = [Finding("error", "E1", "no device"), Finding("warning", "W", "careful")]
    path = job_file(records=9)
    with (path.parent / "train.jsonl").open("a") as stream:
        stream.write("no JSON\n")
    job = load_job(path)
    with pytest.raises(CheckFailed) as failed:
        prepare.prepare(job, backend, Home.from_environ())
    shown = [finding.code for finding in failed.value.findings]
    assert {"E1", "W", "BadJson"} <= set(shown)
    assert list(failed.value.findings) == list(prepare.check(job, backend).findings)
    assert not (home / "staged").exists()
    backend.findings = []
    with pytest.raises(CheckFailed) as failed:
        prepare.prepare(job, backend, Home.from_environ())
    assert list(failed.value.findings) == list(prepare.check(job, backend).findings)


def test_an_account_that_cannot_be_reached_hides_no_fault_of_the_data(
    job_file: JobFile, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(job: LoadedJob) -> LoadedJob:
        raise CloudUnreachable("the stack can't be read")

    monkeypatch.setattr(backend, "with_stack_defaults", unreachable)
    path = job_file(records=9)
    with pytest.raises(CloudUnreachable):
        prepare.prepare(load_job(path), backend, Home.from_environ())
    with (path.parent / "train.jsonl").open("a") as stream:
        stream.write("no JSON\n")
    with pytest.raises(CheckFailed) as failed:
        prepare.prepare(load_job(path), backend, Home.from_environ())
    assert {f.code for f in failed.value.findings} >= {"BadJson", "CouldNotReach"}


class RecordingObserver(RunObserver):
    """Keeps what it receives, and lets a job queue for quota twice."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def on_records_read(self, count: int) -> None:
        self.events.append("read")

    def on_estimate(self, estimate: Estimate) -> None:
        self.events.append(f"estimate {estimate.usd['training']}")

    def on_quota_exceeded(self, error: QuotaExceeded) -> None:
        if self.events.count("queued") == 2:
            raise error
        self.events.append("queued")


def test_one_observer_receives_the_estimate_once_and_keeps_a_job_queued(
    staged: StagedJob, backend: FakeBackend, store: Store
) -> None:
    observer, slept = RecordingObserver(), list[float]()
    backend.full = 2
    job = lifecycle.submit(staged, backend, store, observer=observer, sleep=slept.append)
    assert observer.events == ["estimate 0.0", "queued", "queued"]
    assert slept == [backend.poll_seconds] * 2
    assert backend.sent == [job.record.id]
    again = RecordingObserver()
    lifecycle.submit(staged, backend, store, observer=again)
    assert again.events == [], "it costs nothing more"
    backend.full = 3
    with pytest.raises(QuotaExceeded):
        lifecycle.submit(staged, backend, store, force_new=True)


def test_checking_reports_everything_and_keeps_nothing(
    job_file: JobFile, backend: FakeBackend, home: Path
) -> None:
    backend.findings = [Finding("error", "E1", "no device")]
    checked = prepare.check(load_job(job_file(records=9)), backend)
    assert not checked.ok
    assert "E1" in {finding.code for finding in checked.findings}
    assert checked.volumes is not None and checked.volumes["train"].records == 9
    assert not home.exists()


class Time:
    """A clock that only `sleep` advances."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_waiting_ends_after_its_timeout_and_the_job_keeps_running(backend: FakeBackend) -> None:
    backend.status["job"] = "InProgress"
    time = Time()
    with pytest.raises(WaitTimeout, match="job is still InProgress; it keeps running") as late:
        wait.wait(backend, "job", timeout=70, poll=30, sleep=time.sleep, clock=time.clock)
    assert late.value.exit_code == 124
    assert time.slept == [30, 30, 10]
    assert backend.stopped == []


def test_waiting_returns_the_state_in_which_the_job_ended(backend: FakeBackend) -> None:
    backend.status["job"] = "InProgress"
    time = Time()

    def sleep(seconds: float) -> None:
        time.sleep(seconds)
        if len(time.slept) == 3:
            backend.status["job"] = "Failed"

    state = wait.wait(backend, "job", poll=30, sleep=sleep, clock=time.clock)
    assert state.status == "Failed"
    assert time.slept == [30, 30, 30]


def test_a_job_that_has_ended_is_not_waited_for(backend: FakeBackend) -> None:
    backend.status["job"] = "Completed"
    time = Time()
    assert wait.wait(backend, "job", timeout=0, sleep=time.sleep, clock=time.clock).has_ended
    assert time.slept == []


def test_a_running_job_is_not_deleted_and_an_ended_one_is(
    staged: StagedJob, backend: FakeBackend, store: Store
) -> None:
    record = lifecycle.submit(staged, backend, store).record
    with pytest.raises(JobStateConflict, match="is InProgress") as conflict:
        lifecycle.delete(record, backend, store)
    assert f"cloudft stop {record.id}" in str(conflict.value.fix)
    backend.status[record.id] = "Stopped"
    lifecycle.delete(record, backend, store)
    assert store.job_ids() == []


def test_a_job_that_its_backend_does_not_know_is_deleted_by_force_alone(
    staged: StagedJob, backend: FakeBackend, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = lifecycle.submit(staged, backend, store).record

    def gone(job_id: str) -> JobState:
        raise JobNotFound(f"no job {job_id}")

    monkeypatch.setattr(backend, "describe", gone)
    with pytest.raises(JobNotFound):
        lifecycle.delete(record, backend, store)
    assert store.job_ids() == [record.id]
    lifecycle.delete(record, backend, store, force=True)
    assert store.job_ids() == []


def test_artifacts_before_the_end_and_resuming_where_it_cannot_be_are_conflicts(
    staged: StagedJob, backend: FakeBackend, store: Store
) -> None:
    job = lifecycle.submit(staged, backend, store)
    with pytest.raises(JobStateConflict, match="left no artifacts"):
        lifecycle.require_artifacts(job)
    with pytest.raises(JobStateConflict, match="can't resume"):
        lifecycle.resume(job.record, backend)


def test_jobs_of_an_unknown_backend_do_not_hide_the_others(
    staged: StagedJob, backend: FakeBackend, store: Store
) -> None:
    first = lifecycle.submit(staged, backend, store)
    backend.name = "another-cloud"
    second = lifecycle.submit(staged, backend, store, force_new=True)
    damaged = [
        j for j in listing.list_jobs(store, Home.from_environ()) if isinstance(j, DamagedJob)
    ]
    # The true local backend never got the first one; of the other there is none here.
    messages = {str(job.file): job.message for job in damaged}
    of_second = str(second.record.folder / "record.json")
    assert set(messages) == {str(first.record.folder), of_second}
    assert "there is no backend another-cloud" in messages[of_second]


def test_the_json_of_a_job_has_the_fields_that_others_rely_on(
    staged: StagedJob, backend: FakeBackend, store: Store
) -> None:
    value = lifecycle.submit(staged, backend, store).to_json()
    promised = (
        "id name backend status statusDetails customizationType baseModel hyperParameters"
        " createdAt endedAt failureMessage artifacts manifest cost"
    )
    assert set(promised.split()) <= value.keys()
    assert value["status"] == "InProgress"
    assert list(value["statusDetails"]) == [
        "validationDetails",
        "dataProcessingDetails",
        "trainingDetails",
    ]
