"""A trial is a job like any other: the job file with other values, over data staged once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cloudft.backends import trainer_documents
from cloudft.backends.base import StagedJob
from cloudft.backends.local.job_folder import METRICS, JobFolder
from cloudft.jobs import lifecycle
from cloudft.spec.load import load_spec
from cloudft.spec.serialize import to_portable_values
from cloudft.storage.side_jobs import SWEEP_TAG, TRIAL_TAG
from cloudft.sweep.pruning import Point
from cloudft.sweep.records import OWN_VALUES, Outcome, TrialRecord, Value
from cloudft.sweep.space import SpaceParameter
from cloudft.types import JobState, Metric

if TYPE_CHECKING:
    from cloudft.backends.local.backend import LocalBackend
    from cloudft.storage.store import JobRecord, Store

DIVERGED = "training has diverged"
"""What the trainer's message has in it when the loss is no number; a test compares the two."""
SHORTEST_POLL_S, LONGEST_POLL_S, POLL_SHARE = 0.02, 0.5, 0.02
"""Seconds between two looks at a running trial, which grow with the time it has taken."""
MAX_RESTARTS = 2
"""How often a trainer that was killed is started again."""
MAX_NAME = 40
"""Characters of the job's name in a trial's."""


@dataclass(frozen=True)
class TrialFactory:
    """Builds the jobs of a sweep's trials from its staged job."""

    staged: StagedJob
    space: tuple[SpaceParameter, ...]
    sweep_id: str

    def build(self, record: TrialRecord) -> StagedJob:
        """Return the job of a trial. Raise SpecError for values that no job can have together.

        The data stay as the sweep's seed has split them; only the training gets the trial's seed.
        """
        values = to_portable_values(self.staged.job)
        dotted = {one.name: one.dotted for one in self.space}
        # The job file's own values stay as they are, where the space does not have them.
        searched = record.values if record.number != OWN_VALUES else {}
        flags: dict[str, object] = {dotted[name]: value for name, value in searched.items()}
        job = load_spec(values, flags=flags | {"seed": record.seed})
        number = "own" if record.number == OWN_VALUES else str(record.number)
        own = self.staged.job.spec
        tags = {**own.tags, SWEEP_TAG: self.sweep_id, TRIAL_TAG: number}
        # Not the number: a trial that is done again continues the job that it had.
        name = f"{own.name[:MAX_NAME]}-sweep-{self.sweep_id[-8:]}"
        spec = job.spec.model_copy(update={"name": name, "tags": tags})
        return replace(self.staged, job=replace(job, spec=spec))


@dataclass
class TrialRun:
    """A trial's job while it runs. `on_point` returns why it is to be stopped, or None."""

    staged: StagedJob
    backend: LocalBackend
    store: Store
    record: TrialRecord
    on_point: Callable[[TrialRecord], Outcome | None] = lambda _: None
    on_start: Callable[[TrialRecord], None] = lambda _: None
    _points: dict[int, Point] = field(default_factory=dict)
    _stopped_as: Outcome | None = None
    _job: JobRecord | None = None
    _curve: CurveReader | None = None
    _state: JobState | None = None
    _restarts: int = 0
    _polled_at: float = 0.0

    def start(self) -> None:
        """Start the job, or find the one that an interrupted sweep has started."""
        plan = self.backend.plan(self.staged)
        known = self.store.get_or_none(plan.job_id)
        if known is None or known.backend_job_id is None:
            known = lifecycle.submit(self.staged, self.backend, self.store).record
        else:
            state = self.backend.describe(known.id)
            was_killed = state.status == "Failed" and JobFolder(known.folder).was_killed()
            if was_killed or state.status in ("Stopped", "Stopping"):
                self._wait_until_stopped(known.id)
                self.backend.resume(known.id)
        self.record.job, self._job = known.id, known
        self._curve, self._polled_at = CurveReader(JobFolder(known.folder)), time.monotonic()
        self.on_start(self.record)

    def poll(self, running: int = 1) -> bool:
        """Read the validations that were written since the last call; return whether it has ended.

        `running` trials run now, this one among them: each has its share of the time. A trainer
        that was killed is started again.
        """
        assert self._job is not None and self._curve is not None, "it was started"
        # In this order, so that the curve of an ended job is read to its end.
        state = self.backend.describe(self._job.id)
        now = time.monotonic()
        self.record.seconds = round(self.record.seconds + (now - self._polled_at) / running, 3)
        self._polled_at = now
        for metric in self._curve.read_new():
            self._add(metric, int(self._job.hyper_parameters["batchSize"]), state)
        if state.progress is not None and state.progress.total_steps:
            self.record.done = state.progress.step / state.progress.total_steps
        if not state.has_ended:
            return False
        was_killed = state.status == "Failed" and JobFolder(self._job.folder).was_killed()
        if was_killed and self._restarts < MAX_RESTARTS:
            self._restarts += 1
            self.backend.resume(self._job.id)  # goes on at its last checkpoint
            return False
        self._state = state
        return True

    @property
    def poll_seconds(self) -> float:
        """Return how long to wait before the next look."""
        return min(LONGEST_POLL_S, max(SHORTEST_POLL_S, self.record.seconds * POLL_SHARE))

    def stop(self) -> None:
        """Stop the trainer at a checkpoint, where it can be resumed."""
        if self.record.job is not None:
            self.backend.stop(self.record.job)

    def _wait_until_stopped(self, job_id: str) -> None:
        while not self.backend.describe(job_id).has_ended:
            time.sleep(SHORTEST_POLL_S)

    def _add(self, metric: Metric, batch: int, state: JobState) -> None:
        """Add a validation, and stop the job where that decides so."""
        if metric.split != "validation" or metric.validation_set is not None:
            if not math.isfinite(metric.loss):
                self._stop_as("diverged", state)
            return
        if not math.isfinite(metric.loss):
            self._stop_as("diverged", state)
            return
        total = state.progress.total_steps if state.progress is not None else 0
        step = metric.step + 1
        share = min(1.0, step / total) if total else 0.0
        self._points[step] = Point(step * batch, share, metric.loss)
        self.record.points = [self._points[at] for at in sorted(self._points)]
        self.record.done = share
        reason = self.on_point(self.record)
        if reason is not None:
            self._stop_as(reason, state)

    def _stop_as(self, outcome: Outcome, state: JobState) -> None:
        if self._stopped_as is None:
            self._stopped_as = outcome
            if not state.has_ended:
                self.backend.stop(state.id)

    def end(self) -> None:
        """Write how the trial has ended into its record, after `poll` has returned True."""
        assert self._state is not None, "it has ended"
        record, state = self.record, self._state
        losses = [point.loss for point in self._points.values()]
        record.message = state.failure_message
        if self._stopped_as == "diverged" or DIVERGED in (state.failure_message or ""):
            record.outcome = "diverged"
        elif state.status == "Completed" and losses:
            # The tuned model has the weights of the lowest validation loss.
            record.outcome, record.score, record.done = "complete", min(losses), 1.0
        elif state.status == "Stopped":
            record.outcome = self._stopped_as or "stopped"
        else:
            record.outcome = "failed"
            record.message = record.message or "it ended without a validation"


class CurveReader:
    """Reads the points that are added to a job's curve."""

    def __init__(self, folder: JobFolder) -> None:
        self._path = folder.path / METRICS
        self._offset = 0

    def read_new(self) -> Iterator[Metric]:
        """Yield the points since the last call; all of them where the curve was cut for a resume.

        Raise BadDocument.
        """
        try:
            with self._path.open("rb") as stream:
                size = stream.seek(0, 2)
                if size < self._offset:
                    self._offset = 0
                stream.seek(self._offset)
                content = stream.read()
        except FileNotFoundError:
            return
        for line in content.splitlines(keepends=True):
            if not line.endswith(b"\n"):
                return
            self._offset += len(line)
            yield trainer_documents.parse_metric(line, self._path)


def own_values(staged: StagedJob, space: tuple[SpaceParameter, ...]) -> Mapping[str, Value | None]:
    """Return the job's own value of each parameter; None where the job has none."""
    from cloudft.backends.local.request import resolve_hyperparameters

    trained = resolve_hyperparameters(staged.job)
    return {
        one.name: trained.get(one.field[-1])
        if "hyperparameters" in one.field
        else _value_of(staged.job.spec, one)
        for one in space
    }


def _value_of(spec: object, parameter: SpaceParameter) -> Value | None:
    value: object = spec
    for name in parameter.field:
        value = getattr(value, name, None)
    if parameter.kind == "float" and isinstance(value, int):
        return float(value)
    return value if isinstance(value, (int, float, str, bool)) else None
