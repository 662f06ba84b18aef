"""What a job's training is: a real one on this machine, or an instant one for tests of faults."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloudft.artifacts import TRAINING_CSV, VALIDATION_CSV
from cloudft.errors import CheckFailed, CloudftError
from cloudft.home import Home

PHASES = ("validationDetails", "dataProcessingDetails", "trainingDetails")


@dataclass(frozen=True)
class Look:
    """One look at a run: Bedrock's status words. `artifacts` is set when it has completed."""

    status: str
    details: Mapping[str, str]
    failure: str | None = None
    artifacts: Path | None = None


class Run(ABC):
    """A training that was started."""

    @abstractmethod
    def look(self) -> Look:
        """Where it is now."""

    @abstractmethod
    def stop(self) -> None:
        """Ask it to end."""

    def generate(
        self, messages: list[dict[str, str]], limits: Mapping[str, Any], variant: str
    ) -> Any:
        """The answer (`cloudft.backends.base.Answer`) of the `tuned` model or its `base`."""
        raise NotImplementedError


class Trainer(ABC):
    """Starts runs."""

    @abstractmethod
    def start(self, name: str, request: Mapping[str, Any], data: Mapping[str, Path]) -> Run:
        """Train on the files of `data` (role to path), as the API's `request` says."""


@dataclass
class InstantRun(Run):
    """Walks through the phases by the clock; its curve is a formula, and says so nowhere else."""

    folder: Path
    steps: int
    validation: bool
    seconds: float
    began: float = field(default_factory=time.monotonic)
    stopped: bool = False

    def look(self) -> Look:
        """Where the clock says it is."""
        share = 1.0 if not self.seconds else (time.monotonic() - self.began) / self.seconds
        phase = min(3, int(share * 3))
        if self.stopped and phase < 3:
            words = ["Completed"] * phase + ["Stopped"] + ["NotStarted"] * (2 - phase)
            return Look("Stopped", dict(zip(PHASES, words, strict=True)))
        words = (["Completed"] * phase + ["InProgress"] + ["NotStarted"] * 2)[:3]
        details = dict(zip(PHASES, words, strict=True))
        if phase < 3:
            return Look("InProgress", details)
        self._write()
        return Look("Completed", details, artifacts=self.folder)

    def stop(self) -> None:
        """It ends at the next look."""
        self.stopped = True

    def _write(self) -> None:
        curve = [2.0 * math.exp(-step / 10) + 0.5 for step in range(self.steps)]
        files = {TRAINING_CSV: "training_loss"}
        if self.validation:
            files[VALIDATION_CSV] = "validation_loss"
        for name, column in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = [f"{i},0,{loss:.6f},{math.exp(loss):.6f}" for i, loss in enumerate(curve)]
            header = f"step_number,epoch_number,{column},perplexity"
            path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


class InstantTrainer(Trainer):
    """Trains nothing, in `seconds`: for tests of what is around a training."""

    def __init__(self, folder: Path, seconds: float = 0.0) -> None:
        self.folder = folder
        self.seconds = seconds

    def start(self, name: str, request: Mapping[str, Any], data: Mapping[str, Path]) -> Run:
        """A run whose number of steps follows from the data."""
        with data["train"].open("rb") as stream:
            records = sum(1 for _ in stream)
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return InstantRun(folder, max(1, records), "validation" in data, self.seconds)


class FailedRun(Run):
    """A run that never began: its data or its settings were refused."""

    def __init__(self, failure: str) -> None:
        self.failure = failure

    def look(self) -> Look:
        """Failed in validation."""
        return Look("Failed", {PHASES[0]: "Failed"}, failure=self.failure)

    def stop(self) -> None:
        """It has ended already."""


@dataclass
class LocalRun(Run):
    """A job of the local backend."""

    backend: Any
    job_id: str

    def look(self) -> Look:
        """The trainer's own state; its words are Bedrock's."""
        from cloudft.types import to_json

        state = self.backend.describe(self.job_id)
        return Look(
            "InProgress" if state.status == "Stopping" else state.status,
            to_json(state.status_details),
            state.failure_message,
            Path(state.artifacts) if state.artifacts else None,
        )

    def stop(self) -> None:
        """Leave the trainer's stop mark."""
        self.backend.stop(self.job_id)

    def generate(
        self, messages: list[dict[str, str]], limits: Mapping[str, Any], variant: str
    ) -> Any:
        """Ask in a child process."""
        from cloudft.backends.base import Decoding, Prompt

        decoding = Decoding(
            max_new_tokens=int(limits.get("maxTokens", 256)),
            temperature=float(limits.get("temperature", 0.0)),
            top_p=float(limits.get("topP", 1.0)),
        )
        raw = len(messages) == 1 and messages[0]["role"] == "raw"
        prompt = Prompt(text=messages[0]["content"]) if raw else Prompt(messages)
        [answer] = self.backend.generate(self.job_id, [prompt], [variant], decoding)
        return answer


class LocalTrainer(Trainer):
    """Trains for real, with the local backend and a stand-in for the closed model."""

    def __init__(self, state: Path, stand_in: str, settings: Mapping[str, object]) -> None:
        self.home = Home(state)
        self.stand_in = stand_in
        self.settings = settings

    def start(self, name: str, request: Mapping[str, Any], data: Mapping[str, Path]) -> Run:
        """Check the data as `cloudft check` does, then train."""
        from cloudft.backends import backend
        from cloudft.jobs import prepare
        from cloudft.spec.load import load_job

        flags: dict[str, object] = {
            "name": name,
            "base_model": request["baseModelIdentifier"],
            "customization_type": request.get("customizationType", "FINE_TUNING"),
            "data.train": str(data["train"]),
            "local.model": self.stand_in,
            **{f"hyperparameters.{k}": v for k, v in request.get("hyperParameters", {}).items()},
            **self.settings,
        }
        if "validation" in data:
            flags["data.validation"] = str(data["validation"])
        local: Any = backend("local", self.home)
        try:
            staged, _ = prepare(load_job(None, flags=flags), local, self.home)
        except CheckFailed as error:
            return FailedRun(error.findings[0].message)
        except CloudftError as error:
            return FailedRun(error.message)
        return LocalRun(local, local.submit(local.plan(staged)))
