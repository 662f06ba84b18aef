"""What is kept of each trial, and of each repetition with another seed."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from cloudft.sweep.pruning import Point

Outcome = Literal["running", "complete", "pruned", "diverged", "failed", "stopped"]
"""How a trial ended. `diverged` had a loss that is no number; `stopped` was stopped by someone."""
Value = int | float | str | bool
OWN_VALUES = -1
"""Number of the job file's own values, where the space does not have them."""


class TrialRecord(msgspec.Struct, rename="camel"):
    """One training: a trial, or a trial's values with another seed.

    `points` are validations: records seen, share of the run, loss. `done` is the share of the steps
    that were taken. `same_as` is the number of an earlier trial with these values, whose score it
    has.
    """

    number: int
    values: dict[str, Value]
    seed: int
    outcome: Outcome = "running"
    score: float | None = None
    job: str | None = None
    points: list[Point] = []
    seconds: float = 0.0
    done: float = 0.0
    message: str | None = None
    same_as: int | None = None

    @property
    def is_scored(self) -> bool:
        """Return whether it was trained to its end, itself."""
        return self.outcome == "complete" and self.score is not None and self.same_as is None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        value: dict[str, Any] = msgspec.to_builtins(self)
        return value


def read_record(value: object) -> TrialRecord:
    """Return a record from JSON data. Raise msgspec.ValidationError."""
    return msgspec.convert(value, TrialRecord)
