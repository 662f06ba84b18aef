"""A training: what is ordered, and what was started, whoever runs it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Order:
    """What is to be trained: a name of its own, the API's request, role to file, and where to work.

    `stopping` is set when the job was asked to stop before.
    """

    name: str
    request: Mapping[str, Any]
    data: Mapping[str, Path]
    stand_in: str
    folder: Path
    stopping: bool = False

    @property
    def kind(self) -> str:
        """The customization type."""
        return str(self.request.get("customizationType", "FINE_TUNING"))


@dataclass(frozen=True)
class Look:
    """One look at a run: Bedrock's status words. `artifacts` is set when it has completed."""

    status: str
    details: Mapping[str, str]
    failure: str | None = None
    artifacts: Path | None = None


class Run(ABC):
    """A training that was started."""

    @property
    def local(self) -> str | None:
        """The job of the local backend whose model answers; None when there is none."""
        return None

    @abstractmethod
    def look(self) -> Look:
        """Where it is now."""

    @abstractmethod
    def stop(self) -> None:
        """Ask it to end."""


class FailedRun(Run):
    """A run that never began: its data or its settings were refused."""

    def __init__(self, failure: str) -> None:
        self.failure = failure

    def look(self) -> Look:
        """Failed in validation."""
        return Look("Failed", {"validationDetails": "Failed"}, failure=self.failure)

    def stop(self) -> None:
        """It has ended already."""
