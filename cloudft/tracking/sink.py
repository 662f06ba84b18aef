"""The interface of a tracker: what feed.py needs of MLflow, TensorBoard, wandb and Trackio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cloudft.errors import CloudftError
from cloudft.tracking.curve import Point, PointKey
from cloudft.types import Status


class TrackerFailed(CloudftError):
    """A tracker that could not be reached, or that refused what it got."""

    code = "TrackerFailed"


@dataclass(frozen=True)
class RunFacts:
    """What is known of a job from its start.

    `parameters` are those of the training; `tags` name the job, its data by digest, its backend.
    """

    job_id: str
    job_name: str
    parameters: Mapping[str, str | int | float]
    tags: Mapping[str, str]
    created_at: float


@dataclass(frozen=True)
class EvaluationFacts:
    """The newest evaluation of a job: its figures, at the last step that was trained."""

    evaluated_at: str
    time: float
    step: int
    figures: Mapping[str, float]
    notes: Mapping[str, str]


@dataclass(frozen=True)
class Outcome:
    """How a job ended: what is written beside its curve when it has."""

    status: Status
    tags: Mapping[str, str]
    files: Sequence[Path] = ()
    """Small files of the artifacts. The model stays where it is: a tag names its folder."""
    evaluation: EvaluationFacts | None = None
    not_finite: Mapping[str, Sequence[int]] = field(default_factory=dict)


class Sink(Protocol):
    """One job's run in one tracker. Every method may raise whatever the tracker's library raises.

    When a method returns, the tracker has what it got, or loses it in a way that the next `open`
    sees: what `open` returns is what the feeding goes on from.
    """

    flush_seconds: float
    """How long values are collected before they are sent."""

    @property
    def url(self) -> str | None:
        """Return where people look at the run."""

    def open(self, facts: RunFacts) -> Mapping[PointKey, float]:
        """Find or create the job's run, and return the values that the tracker has of it."""

    def begin_again(self) -> None:
        """Replace the run by an empty one: it has values that are not the job's any more."""

    def log_points(self, points: Sequence[Point]) -> None:
        """Send values that the run does not have, at most `batch_size` of them."""

    def finish(self, outcome: Outcome) -> None:
        """Write how the job ended. Called again after another evaluation."""

    def close(self) -> None:
        """Give up what is open; the job goes on or has ended."""


Settings = Mapping[str, Any]
