"""Answers to be graded, their grades, and open graders: the values of reinforcement."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from cloudft.errors import CheckFailed
from cloudft.types import Finding

GRADER_FIELD = "reinforcement.grader"


@dataclass(frozen=True)
class GraderConfig:
    """The file of a grader, and the limits of the Lambda function that it is on AWS."""

    path: Path
    timeout_seconds: float = 30
    memory_mb: int = 512


@dataclass(frozen=True)
class GradingSample:
    """An answer to be graded: OpenAI's chat messages with the answer as the last one."""

    id: str
    messages: Sequence[Mapping[str, Any]]
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class Grade:
    """The reward of an answer, and what else the grader measured."""

    reward: float
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class GradedEvent:
    """The grades of an event's samples, in order. `seconds` is the time inside the grader."""

    grades: tuple[Grade, ...]
    seconds: float


class GraderFailed(CheckFailed):
    """A grader that can't be used, or failed on a sample, which the message names.

    `detail` is the exception's whole text, `output` the last that the grader printed: both may
    quote the sample, and are for the person at the terminal, not for logs.
    """

    code = "GraderFailed"

    def __init__(self, finding: Finding, *, detail: str, output: str) -> None:
        super().__init__(finding.message, [finding])
        self.detail = detail
        self.output = output


class GradingSession(ABC):
    """A grader that is loaded, until `close`. Not thread-safe."""

    def __enter__(self) -> GradingSession:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @abstractmethod
    def grade(self, samples: Sequence[GradingSample]) -> GradedEvent:
        """Return the grades of one event's samples. Raise GraderFailed."""

    @abstractmethod
    def close(self) -> None:
        """End the grader."""
