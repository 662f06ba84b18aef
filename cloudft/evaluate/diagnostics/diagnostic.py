"""The result of one diagnostic: a failure of tuning that nobody notices, measured and explained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

from cloudft.evaluate.results import DiagnosticResult

Level = Literal["good", "warning", "bad"]


@dataclass(frozen=True)
class Diagnostic:
    """A level, a sentence that explains it, and the numbers behind the sentence (JSON values)."""

    level: Level
    sentence: str
    numbers: Mapping[str, object]

    def to_json(self) -> DiagnosticResult:
        """Return the diagnostic as an evaluation saves it: the numbers are further keys."""
        result = {"level": self.level, "sentence": self.sentence, **self.numbers}
        return cast(DiagnosticResult, result)


def choose_level(value: float, *, warning: float, bad: float) -> Level:
    """Return the level of a value that is worse the higher it is."""
    return "bad" if value >= bad else "warning" if value >= warning else "good"
