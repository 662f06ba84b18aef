"""What goes wrong in tuning without anyone noticing: each measured, each said in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["good", "warning", "bad"]


@dataclass(frozen=True)
class Diagnostic:
    """What was found, how bad it is, and the numbers behind the sentence."""

    level: Level
    sentence: str
    numbers: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As an evaluation keeps it."""
        return {"level": self.level, "sentence": self.sentence, **self.numbers}
