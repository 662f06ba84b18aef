"""A training: what is ordered, and what was started, whoever runs it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class TrainingRequest:
    """What is to be trained: a name of its own, the API's request, role to file, and where to work.

    `stopping` is set when the job was asked to stop before.
    """

    name: str
    request: Mapping[str, Any]
    data: Mapping[str, Path]
    stand_in: str
    folder: Path
    stop_requested: bool = False

    @property
    def customization_type(self) -> str:
        """The customization type."""
        return str(self.request.get("customizationType", "FINE_TUNING"))


@dataclass(frozen=True)
class RunStatus:
    """One look at a run: Bedrock's status words. `artifacts` is set when it has completed."""

    status: str
    status_details: Mapping[str, str]
    failure_message: str | None = None
    artifacts: Path | None = None


class TrainingRun(ABC):
    """A training that was started."""

    @property
    def local_job_id(self) -> str | None:
        """The job of the local backend whose model answers; None when there is none."""
        return None

    @abstractmethod
    def poll(self) -> RunStatus:
        """Where it is now."""

    @abstractmethod
    def stop(self) -> None:
        """Ask it to end."""


class FailedRun(TrainingRun):
    """A run that never began: its data or its settings were refused."""

    def __init__(self, failure_message: str) -> None:
        self.failure_message = failure_message

    def poll(self) -> RunStatus:
        """Failed in validation."""
        return RunStatus(
            "Failed", {"validationDetails": "Failed"}, failure_message=self.failure_message
        )

    def stop(self) -> None:
        """It has ended already."""
