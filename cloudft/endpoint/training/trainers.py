"""What a job's training is: a real one on this machine, or none, by a clock that runs fast."""

from __future__ import annotations

import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cloudft.backends.local.backend import LocalBackend
from cloudft.endpoint.training import failure_messages
from cloudft.endpoint.training.distillation import DistillationRun, Teacher
from cloudft.endpoint.training.run import FailedRun, RunStatus, TrainingRequest, TrainingRun
from cloudft.errors import CheckFailed, CloudftError
from cloudft.jobs.prepare import prepare
from cloudft.spec.load import load_job
from cloudft.storage.artifacts import TRAINING_CSV, VALIDATION_CSV
from cloudft.types import to_json

PHASES = ("validationDetails", "dataProcessingDetails", "trainingDetails")


class Trainer(ABC):
    """Starts runs. Ordered again, a run that is there is found, and gone on with."""

    customization_types: Collection[str] = ()
    """The customization types that it takes."""

    @abstractmethod
    def start(self, order: TrainingRequest) -> TrainingRun:
        """Train."""

    def export_merged(self, local: str, folder: Path) -> str | None:
        """The folder with the whole model of an earlier training; None where nothing is trained."""
        return None


@dataclass
class SimulatedRun(TrainingRun):
    """Walks through the phases by the clock; its curve is a formula, and says so nowhere else."""

    checkpoints: Path
    steps: int
    validation: bool
    seconds: float
    started: float = field(default_factory=time.monotonic)
    stopped: bool = False

    def poll(self) -> RunStatus:
        """Where the clock says it is."""
        share = 1.0 if not self.seconds else (time.monotonic() - self.started) / self.seconds
        phase = min(3, int(share * 3))
        if self.stopped and phase < 3:
            words = ["Completed"] * phase + ["Stopped"] + ["NotStarted"] * (2 - phase)
            return RunStatus("Stopped", dict(zip(PHASES, words, strict=True)))
        words = (["Completed"] * phase + ["InProgress"] + ["NotStarted"] * 2)[:3]
        details = dict(zip(PHASES, words, strict=True))
        if phase < 3:
            return RunStatus("InProgress", details)
        self._write_loss_curves()
        return RunStatus("Completed", details, artifacts=self.checkpoints)

    def stop(self) -> None:
        """It ends at the next look."""
        self.stopped = True

    def _write_loss_curves(self) -> None:
        curve = [2.0 * math.exp(-step / 10) + 0.5 for step in range(self.steps)]
        files = {TRAINING_CSV: "training_loss"}
        if self.validation:
            files[VALIDATION_CSV] = "validation_loss"
        for name, column in files.items():
            path = self.checkpoints / name
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = [f"{i},0,{loss:.6f},{math.exp(loss):.6f}" for i, loss in enumerate(curve)]
            header = f"step_number,epoch_number,{column},perplexity"
            path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


class SimulatedTrainer(Trainer):
    """Trains nothing, in `seconds`: for tests of what is around a training."""

    customization_types = (
        "FINE_TUNING",
        "CONTINUED_PRE_TRAINING",
        "DISTILLATION",
        "REINFORCEMENT_FINE_TUNING",
    )

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def start(self, order: TrainingRequest) -> TrainingRun:
        """A run whose number of steps follows from the data."""
        with order.data["train"].open("rb") as stream:
            records = sum(1 for _ in stream)
        folder = order.folder / "instant"
        folder.mkdir(parents=True, exist_ok=True)
        return SimulatedRun(folder, max(1, records), "validation" in order.data, self.seconds)


@dataclass
class LocalRun(TrainingRun):
    """A job of the local backend."""

    backend: LocalBackend
    job_id: str

    @property
    def local_job_id(self) -> str | None:
        """Its id there."""
        return self.job_id

    def poll(self) -> RunStatus:
        """The trainer's own state; its words are Bedrock's."""
        state = self.backend.describe(self.job_id)
        return RunStatus(
            "InProgress" if state.status == "Stopping" else state.status,
            to_json(state.status_details),
            state.failure_message,
            Path(state.artifacts) if state.artifacts else None,
        )

    def stop(self) -> None:
        """Leave the trainer's stop mark."""
        self.backend.stop(self.job_id)


class LocalTrainer(Trainer):
    """Trains for real, with the local backend and a stand-in for the closed model."""

    customization_types = ("FINE_TUNING", "CONTINUED_PRE_TRAINING", "DISTILLATION")

    def __init__(
        self, backend: LocalBackend, teacher: Teacher, settings: Mapping[str, object]
    ) -> None:
        self.backend = backend
        self.teacher = teacher
        self.settings = settings
        self._merging = threading.Lock()

    def start(self, order: TrainingRequest) -> TrainingRun:
        """Check the data as `cloudft check` does, then train."""
        if order.customization_type == "DISTILLATION":
            return DistillationRun(order, self.teacher, self._train)
        return self._train(order)

    def export_merged(self, local: str, folder: Path) -> str | None:
        """Exported the first time."""
        with self._merging:
            if not folder.exists():
                folder.parent.mkdir(parents=True, exist_ok=True)
                self.backend.export(local, folder, "float32")
        return str(folder.absolute())

    def _train(self, order: TrainingRequest) -> TrainingRun:
        backend = self.backend
        try:
            staged, _ = prepare(
                load_job(None, flags=self._job_settings(order)), backend, backend.home
            )
            job_id = backend.submit(backend.plan(staged))
            stopped = backend.describe(job_id).status == "Stopped" and not order.stop_requested
            if stopped or backend.was_interrupted(job_id):
                backend.resume(job_id)
        except CheckFailed as error:
            return FailedRun(failure_messages.failure_message_of(order, error))
        except CloudftError as error:
            return FailedRun(error.message.partition(" (from --set")[0])
        return LocalRun(backend, job_id)

    def _job_settings(self, order: TrainingRequest) -> dict[str, object]:
        given = order.request.get("hyperParameters", {})
        return {
            "name": order.name,
            "base_model": order.request["baseModelIdentifier"],
            "customization_type": order.customization_type,
            "local.model": order.stand_in,
            **{f"data.{role}": str(path) for role, path in order.data.items()},
            **{f"hyperparameters.{name}": value for name, value in given.items()},
            **self.settings,
        }
