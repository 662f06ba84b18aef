"""Decode lines of metrics.jsonl by the thousand. See backends/trainer_documents.py for one line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Annotated, Literal

import msgspec

from cloudft.types import Metric, Split

Step = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 2)]
Value = float | Literal["NaN", "Infinity", "-Infinity"] | None
"""Of a point; as text where Python's json wrote NaN or Infinity."""
MEASURES = (
    "loss",
    "reward",
    "learning_rate",
    "tokens_per_second",
    "kl",
    "response_length",
    "entropy",
    "dead_groups",
    "clip_fraction",
    "chosen_reward",
    "rejected_reward",
    "reward_margin",
    "preference_accuracy",
)
"""Fields of a point that have a curve, in the order in which a page shows them."""
_NOT_FINITE = re.compile(rb'(": ?)(NaN|-?Infinity)(?=[,}\s])')


class CurvePoint(msgspec.Struct, rename="camel"):
    """One line, as far as it is drawn."""

    step: Step
    split: Literal["train", "validation"]
    loss: Value = None
    validation_set: str | None = None
    learning_rate: Value = None
    tokens_per_second: Value = None
    reward: Value = None
    kl: Value = None
    response_length: Value = None
    entropy: Value = None
    dead_groups: Value = None
    clip_fraction: Value = None
    chosen_reward: Value = None
    rejected_reward: Value = None
    reward_margin: Value = None
    preference_accuracy: Value = None


@dataclass(frozen=True)
class CurveKey:
    """What a curve is of: a measure, a split, and one of several validation sets."""

    measure: str
    split: Split
    validation_set: str | None = None

    @property
    def name(self) -> str:
        """Return the name of the curve in a chart of its measure."""
        if self.split == "train":
            return "training"
        return "validation" if self.validation_set is None else f"validation {self.validation_set}"


_DECODER = msgspec.json.Decoder(CurvePoint)
_GETTERS: dict[str, Callable[[object], Value]] = {name: attrgetter(name) for name in MEASURES}


def decode_points(block: bytes) -> tuple[list[CurvePoint], int]:
    """Return the points of whole lines, and how many lines are none."""
    if b"NaN" in block or b"Infinity" in block:
        block = _NOT_FINITE.sub(rb'\1"\2"', block)
    try:
        return _DECODER.decode_lines(block), 0
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _decode_each(block)


def _decode_each(block: bytes) -> tuple[list[CurvePoint], int]:
    points, unreadable = [], 0
    for line in block.splitlines():
        try:
            points.append(msgspec.convert(json.loads(line), CurvePoint))
        except (ValueError, RecursionError, msgspec.ValidationError):
            unreadable += 1
    return points, unreadable


def split_curves(
    points: Sequence[CurvePoint | Metric],
) -> Iterator[tuple[CurveKey, list[int], list[float]]]:
    """Yield each curve that has points: what it is of, the steps done (from 1), and the values."""
    groups: dict[tuple[Split, str | None], list[CurvePoint | Metric]] = {}
    for point in points:
        groups.setdefault((point.split, point.validation_set), []).append(point)
    for (split, validation_set), same in groups.items():
        steps = [point.step + 1 for point in same]
        for measure, get in _GETTERS.items():
            values = [get(point) for point in same]
            x, y = _without_missing(steps, values)
            if x:
                yield CurveKey(measure, split, validation_set), x, y


def _without_missing(
    steps: Sequence[int], values: Sequence[Value]
) -> tuple[list[int], list[float]]:
    """Return steps and values of the points that have one; NaN and Infinity are values."""
    missing = values.count(None)
    if missing == len(values):
        return [], []
    pairs = zip(steps, values, strict=True)
    kept = [(step, float(value)) for step, value in pairs if value is not None]
    return [step for step, _ in kept], [value for _, value in kept]
