"""The conformance suite: what every backend must do, tested through its interface alone.

A backend brings a `bench` fixture (see Workbench) and a class that inherits BackendSuite. Tests of
a capability that it lacks are skipped by the capability's name: SupportsResume, SupportsGenerate,
SupportsExport.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from cloudft.backends.base import Backend, StagedJob
from cloudft.backends.capabilities import (
    SupportsExport,
    SupportsGenerate,
    SupportsResume,
    SupportsServing,
)
from cloudft.backends.export_options import ExportOptions
from cloudft.errors import JobNotFound, JobStateConflict
from cloudft.inference import GenerationConfig, Prompt
from cloudft.jobs import wait
from cloudft.storage import artifacts
from cloudft.types import JobState, LogLine, Metric, Plan, Split, to_json

Ability = TypeVar("Ability")
Value = TypeVar("Value")
STEPS, STEPS_PER_EPOCH = 9, 3
"""Of the short job."""
SECONDS = 120.0


@dataclass(frozen=True)
class Workbench:
    """A backend with everything that it needs to run for real.

    `short` and `long` stage a job of that name: one of STEPS steps in epochs of STEPS_PER_EPOCH
    with validation, and one that runs for at least a minute. `root` is the folder of it all.
    """

    backend: Backend
    root: Path
    short: Callable[[str], StagedJob]
    long: Callable[[str], StagedJob]
    poll: float

    def make_once(self, name: str, make: Callable[[], Value]) -> Value:
        """Return what `make` returns; call it once, also when several workers run these tests."""
        path = self.root / f"{name}.pickle"
        with (self.root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                path.write_bytes(pickle.dumps(make()))
        value: Value = pickle.loads(path.read_bytes())
        return value

    def wait_until(self, job_id: str, here: Callable[[JobState], bool]) -> JobState:
        """Return the first state that satisfies `here`; fail when the job ends before."""
        end = time.monotonic() + SECONDS
        while not here(state := self.backend.describe(job_id)):
            assert not state.has_ended, state
            assert time.monotonic() < end, state
            time.sleep(self.poll)
        return state

    def wait_until_ended(self, job_id: str) -> JobState:
        """Return the state in which the job ended."""
        return wait.wait(self.backend, job_id, timeout=SECONDS, poll=self.poll)


@dataclass(frozen=True)
class FinishedJob:
    """A short job from its submit to its end."""

    plan: Plan
    ids: list[str]
    states: list[JobState]
    log_as_it_came: list[LogLine]

    @property
    def id(self) -> str:
        return self.ids[0]


def finish(bench: Workbench) -> FinishedJob:
    """Submit a short job twice and watch it to its end."""
    backend = bench.backend
    plan = backend.plan(bench.short("short"))
    ids = [backend.submit(plan), backend.submit(plan)]
    states: list[JobState] = []
    log: list[LogLine] = []
    for state in wait.poll_until_ended(
        lambda: backend.describe(ids[0]), timeout=SECONDS, poll=bench.poll
    ):
        states.append(state)
        log += backend.logs(ids[0], log[-1].cursor if log else None)
    ids.append(backend.submit(plan))
    return FinishedJob(plan, ids, states, log)


def require_capability(backend: Backend, kind: type[Ability]) -> Ability:
    """Return the backend typed as that capability, or skip the test."""
    if not isinstance(backend, kind):
        pytest.skip(f"the backend {backend.name} is no {kind.__name__}")
    return backend


def is_running(state: JobState) -> bool:
    """Return whether a job trains, and has taken some steps where the backend reports steps."""
    if state.progress is None:
        return state.status_details.training_details == "InProgress"
    return state.progress.step > 3


def list_files(folder: Path) -> dict[str, int]:
    """Return every file below `folder`, and when it was changed last."""
    return {str(p): os.lstat(p).st_mtime_ns for p in folder.rglob("*")}


@pytest.fixture(scope="module")
def finished(bench: Workbench) -> FinishedJob:
    """Return a completed job that many tests read."""
    return bench.make_once("finished", lambda: finish(bench))


class BackendSuite:
    """Inherit as TestX beside a `bench` fixture of module scope."""

    @pytest.fixture
    def running(self, bench: Workbench, request: pytest.FixtureRequest) -> Iterator[str]:
        """Yield a long job that has taken steps; stop it when the test leaves it running."""
        job_id = bench.backend.submit(bench.backend.plan(bench.long(f"long-{_word(request)}")))
        bench.wait_until(job_id, is_running)
        yield job_id
        bench.backend.stop(job_id)

    def test_a_plan_is_a_value_touches_nothing_and_is_equal_twice(
        self, bench: Workbench, tmp_path: Path
    ) -> None:
        staged = bench.short("planned")
        before = list_files(staged.folder)
        plan, again = bench.backend.plan(staged), bench.backend.plan(staged)
        assert plan == again
        assert to_json(plan) == to_json(again)
        assert list_files(staged.folder) == before
        with pytest.raises(JobNotFound):
            bench.backend.describe(f"{plan.name}-{plan.token[:8]}")
        assert plan.backend == bench.backend.name
        assert plan.manifest == staged.manifest
        assert {"train", "validation"} <= plan.files.keys()

    def test_another_attempt_or_other_settings_is_another_token(self, bench: Workbench) -> None:
        staged = bench.short("planned")
        others = [
            dataclasses.replace(staged, attempt=1),
            bench.short("other"),
            bench.long("planned"),
        ]
        tokens = [bench.backend.plan(job).token for job in (staged, *others)]
        assert len(set(tokens)) == 4

    @pytest.mark.parametrize(
        "operation", ["describe", "metrics", "logs", "stop", "download_artifacts", "resume"]
    )
    def test_a_job_that_it_does_not_have_is_not_found(
        self, bench: Workbench, tmp_path: Path, operation: str
    ) -> None:
        backend: Any = bench.backend
        if operation == "resume":
            require_capability(bench.backend, SupportsResume)
        more = (tmp_path / "out",) if operation == "download_artifacts" else ()
        with pytest.raises(JobNotFound):
            list(getattr(backend, operation)("no-such-job", *more) or ())

    def test_the_same_plan_submitted_again_is_the_same_job(self, finished: FinishedJob) -> None:
        during, twice, after = finished.ids
        assert during == twice == after

    def test_two_plans_are_two_jobs(self, finished: FinishedJob, running: str) -> None:
        assert running != finished.id

    def test_a_job_walks_through_bedrocks_words_to_completed(self, finished: FinishedJob) -> None:
        order = ["NotStarted", "InProgress", "Completed"]
        *before, last = finished.states
        assert {state.status for state in before} <= {"InProgress"}
        assert last.status == "Completed"
        assert set(vars(last.status_details).values()) == {"Completed"}
        for phase in vars(last.status_details):
            walked = [order.index(getattr(s.status_details, phase)) for s in finished.states]
            assert walked == sorted(walked), phase
        steps = [state.progress.step for state in finished.states if state.progress]
        assert steps == sorted(steps)
        assert steps == [] or steps[-1] == STEPS
        assert last.created_at <= str(last.ended_at)
        assert last.artifacts and last.failure_message is None

    def test_the_curve_has_every_step_once_in_order(
        self, bench: Workbench, finished: FinishedJob
    ) -> None:
        points = list(bench.backend.metrics(finished.id))
        train = [p for p in points if p.split == "train"]
        assert [(p.step, p.epoch) for p in train] == [
            (step, step // STEPS_PER_EPOCH) for step in range(STEPS)
        ]
        held_out = [p for p in points if p.split == "validation"]
        assert [p.step for p in held_out] == [2, 5, 8]
        assert [p.step for p in points] == sorted(p.step for p in points)
        first, last = train[0], train[-1]
        if first.reward is None or last.reward is None:
            assert last.loss < first.loss
        else:  # its loss has no direction
            assert last.reward > first.reward

    def test_logs_go_on_behind_a_cursor_without_loss_or_repeat(
        self, bench: Workbench, finished: FinishedJob
    ) -> None:
        lines = list(bench.backend.logs(finished.id))
        assert len(lines) > 3
        known = len(finished.log_as_it_came)
        assert finished.log_as_it_came == lines[:known]
        for number, line in enumerate(lines):
            assert list(bench.backend.logs(finished.id, line.cursor)) == lines[number + 1 :]

    def test_artifacts_have_the_one_layout(
        self, bench: Workbench, finished: FinishedJob, tmp_path: Path
    ) -> None:
        folder = bench.backend.download_artifacts(finished.id, tmp_path / "out")
        assert artifacts.is_complete(folder)
        files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
        assert {artifacts.TRAINING_CSV, artifacts.VALIDATION_CSV, artifacts.MANIFEST} <= files
        curve = sorted(bench.backend.metrics(finished.id), key=_split_and_step)
        written = sorted(artifacts.read_metrics(folder), key=_split_and_step)
        assert [_split_and_step(p) for p in written] == [_split_and_step(p) for p in curve]
        assert [p.loss for p in written] == pytest.approx([p.loss for p in curve])
        assert [p.epoch for p in written] == [p.epoch for p in curve]

    def test_artifacts_never_overwrite(
        self, bench: Workbench, finished: FinishedJob, tmp_path: Path
    ) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "precious").write_text("x")
        with pytest.raises(JobStateConflict):
            bench.backend.download_artifacts(finished.id, tmp_path / "out")
        assert [p.name for p in (tmp_path / "out").iterdir()] == ["precious"]

    def test_stopping_after_the_end_does_nothing(
        self, bench: Workbench, finished: FinishedJob
    ) -> None:
        bench.backend.stop(finished.id)
        assert bench.backend.describe(finished.id).status == "Completed"

    def test_stopping_ends_in_stopped_and_a_second_stop_does_nothing(
        self, bench: Workbench, running: str, tmp_path: Path
    ) -> None:
        bench.backend.stop(running)
        assert bench.backend.describe(running).status in ("Stopping", "Stopped")
        bench.backend.stop(running)
        state = bench.wait_until_ended(running)
        assert state.status == "Stopped"
        assert state.status_details.training_details == "Stopped"
        assert state.status_details.data_processing_details == "Completed"
        assert state.artifacts is None
        bench.backend.stop(running)
        assert bench.backend.describe(running).status == "Stopped"
        with pytest.raises(JobStateConflict):
            bench.backend.download_artifacts(running, tmp_path / "out")

    def test_a_stopped_job_resumes_where_it_was(self, bench: Workbench, running: str) -> None:
        backend = bench.backend
        resumes = require_capability(backend, SupportsResume)
        with pytest.raises(JobStateConflict):
            resumes.resume(running)
        backend.stop(running)
        stopped = bench.wait_until_ended(running).progress
        curve = list(backend.metrics(running))
        assert stopped is not None
        resumes.resume(running)
        bench.wait_until(running, lambda s: bool(s.progress and s.progress.step > stopped.step + 3))
        again = list(backend.metrics(running))
        assert again[: len(curve)] == curve
        assert [p.step for p in again] == list(range(len(again)))

    def test_a_completed_job_has_nothing_to_resume(
        self, bench: Workbench, finished: FinishedJob
    ) -> None:
        resumes = require_capability(bench.backend, SupportsResume)
        with pytest.raises(JobStateConflict):
            resumes.resume(finished.id)
        assert bench.backend.describe(finished.id).status == "Completed"

    def test_the_tuned_model_and_its_base_answer(
        self, bench: Workbench, finished: FinishedJob
    ) -> None:
        generates = require_capability(bench.backend, SupportsGenerate)
        if isinstance(bench.backend, SupportsServing):
            bench.backend.deploy(
                bench.backend.plan_serving(finished.id, provisioned=False, units=1, hours=None)
            )
        prompts = [Prompt([{"role": "user", "content": f"Where is parcel {n}?"}]) for n in (1, 2)]
        answers = list(
            generates.generate(
                finished.id, prompts, ["tuned", "base"], GenerationConfig(max_new_tokens=4)
            )
        )
        assert sorted((a.index, a.variant) for a in answers) == [
            (0, "base"),
            (0, "tuned"),
            (1, "base"),
            (1, "tuned"),
        ]
        assert all(a.tokens <= 4 for a in answers)

    def test_what_serves_a_model_is_made_once_and_removed(
        self, bench: Workbench, running: str
    ) -> None:
        serves = require_capability(bench.backend, SupportsServing)
        with pytest.raises(JobStateConflict):
            serves.plan_serving(running, provisioned=False, units=1, hours=None)
        assert serves.list_servings(running) == [] == serves.undeploy(running)

    def test_an_unfinished_job_neither_generates_nor_exports(
        self, bench: Workbench, running: str, tmp_path: Path
    ) -> None:
        if isinstance(bench.backend, SupportsGenerate):
            with pytest.raises(JobStateConflict):
                list(
                    bench.backend.generate(
                        running, [Prompt(text="x")], ["tuned"], GenerationConfig()
                    )
                )
        if isinstance(bench.backend, SupportsExport):
            with pytest.raises(JobStateConflict):
                bench.backend.export(running, tmp_path / "out", ExportOptions())

    def test_the_merged_model_is_proven_and_overwrites_nothing(
        self, bench: Workbench, finished: FinishedJob, tmp_path: Path
    ) -> None:
        exports = require_capability(bench.backend, SupportsExport)
        proof = exports.export(finished.id, tmp_path / "merged", ExportOptions())
        assert proof["equalGreedyAnswers"] == proof["records"] > 0
        assert (tmp_path / "merged" / "config.json").is_file()


def _word(request: pytest.FixtureRequest) -> str:
    """Return a job name for a test."""
    return "".join(c for c in request.node.name if c.isalnum())[-40:]


def _split_and_step(point: Metric) -> tuple[Split, int]:
    return point.split, point.step
