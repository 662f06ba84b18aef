"""Trainers: a real one that trains on this machine, and one that simulates training by a clock."""

from __future__ import annotations

import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cloudft.backends.export_options import ExportOptions
from cloudft.backends.local.backend import LocalBackend
from cloudft.endpoint.training import failure_messages
from cloudft.endpoint.training.distillation import DistillationRun, Teacher
from cloudft.endpoint.training.job_settings import load_requested_job, stand_in_settings
from cloudft.endpoint.training.run import FailedRun, RunStatus, TrainingRequest, TrainingRun
from cloudft.endpoint.training.validation import find_refusal
from cloudft.errors import CheckFailed, CloudftError
from cloudft.jobs.prepare import prepare
from cloudft.storage.artifacts import TRAINING_CSV, validation_csv
from cloudft.types import Metric, is_validation_role, to_json, validation_set_of

PHASES = ("validationDetails", "dataProcessingDetails", "trainingDetails")
"""The phases of `statusDetails`, in order."""


class Trainer(ABC):
    """Starts training runs. Idempotent: a run that exists is reattached and continued."""

    customization_types: Collection[str] = ()
    """The customization types that it trains."""
    runs_graders = False
    """Whether a reinforcement job needs a grader that this machine can run."""

    @abstractmethod
    def start(self, request: TrainingRequest) -> TrainingRun:
        """Start the run, or reattach to the run of the same name."""

    def export_merged(self, local_job_id: str, folder: Path) -> str | None:
        """Write the merged model of an earlier run to `folder`, and return the folder.

        None if the trainer trains nothing.
        """
        return None


@dataclass
class SimulatedRun(TrainingRun):
    """Simulates the phases on a clock. The loss curve is synthetic: 2 exp(-step / 10) + 0.5.

    A third of `seconds` for each phase; with 0 the run is complete at the first poll.
    """

    folder: Path
    steps: int
    roles: Collection[str]
    seconds: float
    started: float = field(default_factory=time.monotonic)
    stopped: bool = False

    def poll(self) -> RunStatus:
        """Return the status by the clock. Write the output files when the time is up."""
        elapsed = time.monotonic() - self.started
        phase = min(3, int(elapsed / self.seconds * 3)) if self.seconds else 3
        if self.stopped and phase < 3:
            statuses = ["Completed"] * phase + ["Stopped"] + ["NotStarted"] * (2 - phase)
            return RunStatus("Stopped", dict(zip(PHASES, statuses, strict=True)))
        statuses = (["Completed"] * phase + ["InProgress"] + ["NotStarted"] * 2)[:3]
        details = dict(zip(PHASES, statuses, strict=True))
        if phase < 3:
            return RunStatus("InProgress", details)
        self._write_loss_curves()
        return RunStatus("Completed", details, artifacts=self.folder)

    def stop(self) -> None:
        """End the run at the next poll."""
        self.stopped = True

    def _write_loss_curves(self) -> None:
        curve = [2.0 * math.exp(-step / 10) + 0.5 for step in range(self.steps)]
        files = {TRAINING_CSV: "training_loss"}
        for role in filter(is_validation_role, self.roles):
            files[validation_csv(validation_set_of(role))] = "validation_loss"
        for name, column in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = [f"{i},0,{loss:.6f},{math.exp(loss):.6f}" for i, loss in enumerate(curve)]
            header = f"step_number,epoch_number,{column},perplexity"
            path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


class SimulatedTrainer(Trainer):
    """Trains nothing, in `seconds`: for tests of what surrounds a training."""

    customization_types = (
        "FINE_TUNING",
        "CONTINUED_PRE_TRAINING",
        "DISTILLATION",
        "REINFORCEMENT_FINE_TUNING",
    )

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def start(self, request: TrainingRequest) -> TrainingRun:
        """Return a run with one step per record."""
        refused = find_refusal(request)
        if refused is not None:
            return FailedRun(refused)
        with request.data["train"].open("rb") as stream:
            records = sum(1 for _ in stream)
        folder = request.folder / "instant"
        folder.mkdir(parents=True, exist_ok=True)
        return SimulatedRun(folder, max(1, records), tuple(request.data), self.seconds)


@dataclass
class LocalRun(TrainingRun):
    """A job of the local backend."""

    backend: LocalBackend
    job_id: str

    @property
    def local_job_id(self) -> str | None:
        """Return the job's id."""
        return self.job_id

    def poll(self) -> RunStatus:
        """Return the job's status: the local backend has Bedrock's words."""
        state = self.backend.describe(self.job_id)
        return RunStatus(
            # A run that is stopping has not ended: any status but InProgress would end the job.
            "InProgress" if state.status == "Stopping" else state.status,
            to_json(state.status_details),
            state.failure_message,
            Path(state.artifacts) if state.artifacts else None,
        )

    def losses(self) -> Iterator[Metric]:
        """Yield the points that the trainer has written."""
        return self.backend.metrics(self.job_id)

    def stop(self) -> None:
        """Request a stop with a checkpoint."""
        self.backend.stop(self.job_id)


class LocalTrainer(Trainer):
    """Trains with the local backend, a stand-in in place of the closed model.

    `teacher` answers the prompts of a distillation. `settings` are job-file values (dotted names)
    that apply to every job.
    """

    customization_types = (
        "FINE_TUNING",
        "CONTINUED_PRE_TRAINING",
        "DISTILLATION",
        "REINFORCEMENT_FINE_TUNING",
    )
    runs_graders = True

    def __init__(
        self, backend: LocalBackend, teacher: Teacher, settings: Mapping[str, object]
    ) -> None:
        self.backend = backend
        self.teacher = teacher
        self.settings = settings
        self._merging = threading.Lock()

    def start(self, request: TrainingRequest) -> TrainingRun:
        """Check the data as `cloudft check` does, then train. Errors end in a FailedRun."""
        refused = find_refusal(request)
        if refused is not None:
            return FailedRun(refused)
        if request.customization_type == "DISTILLATION":
            return DistillationRun(request, self.teacher, self._train)
        return self._train(request)

    def export_merged(self, local_job_id: str, folder: Path) -> str | None:
        """Write the merged model the first time, and return its folder."""
        # One at a time: two jobs on the same custom model would write the same folder.
        with self._merging:
            if not folder.exists():
                folder.parent.mkdir(parents=True, exist_ok=True)
                self.backend.export(local_job_id, folder, ExportOptions())
        return str(folder.absolute())

    def _train(self, request: TrainingRequest) -> TrainingRun:
        backend = self.backend
        try:
            all_weights = self.settings.get("local.method") == "full"
            stand_in = stand_in_settings(request, all_weights=all_weights)
            settings = {**stand_in, **self.settings, **request.settings}
            staged, _ = prepare(load_requested_job(request, settings), backend, backend.home)
            # The same data and settings are the same plan, and `submit` finds the plan's job. So
            # after a restart of the endpoint this line returns the job that was running.
            job_id = backend.submit(backend.plan(staged))
            # It was stopped when the endpoint ended, unless its user had stopped it before.
            stopped = backend.describe(job_id).status == "Stopped" and not request.stop_requested
            if stopped or backend.was_interrupted(job_id):
                backend.resume(job_id)
        except CheckFailed as error:
            return FailedRun(failure_messages.failure_message_of(request, error))
        except CloudftError as error:
            # The settings came from no command line: leave out where cloudft says they come from.
            return FailedRun(error.message.partition(" (from --set")[0])
        return LocalRun(backend, job_id)
