"""A job's curve as a tracker takes it: named values by step. What is compared, and how."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from cloudft.types import Metric

SPEED = "tokens_per_second"
"""Measured again when a step is done again, so a difference means nothing."""
MEASURES = (
    "loss",
    "learning_rate",
    SPEED,
    "chosen_reward",
    "rejected_reward",
    "reward_margin",
    "preference_accuracy",
    "reward",
    "kl",
    "response_length",
    "entropy",
    "dead_groups",
    "clip_fraction",
)
"""Fields of a Metric that are sent. The perplexity is exp(loss)."""
TOLERANCE = 1e-5
"""TensorBoard keeps 32 bits of a value: a relative difference up to this one is none."""

PointKey = tuple[str, int]
"""Name and step."""


@dataclass(frozen=True)
class Point:
    """One value of one curve; `time` in seconds since 1970."""

    name: str
    step: int
    value: float
    time: float

    @property
    def key(self) -> PointKey:
        """Return what there is once in a tracker."""
        return self.name, self.step


def row_of(point: Point) -> tuple[int, str]:
    """Return what the values of one row have in common: step and curve."""
    return point.step, point.name.rpartition("/")[0]


@dataclass(frozen=True)
class Curve:
    """All values of a job, in the order of its file; those that are no numbers apart.

    `not_finite` has the steps at which a curve is NaN or infinite, by the curve's name.
    """

    points: tuple[Point, ...]
    not_finite: Mapping[str, tuple[int, ...]]


def read_curve(metrics: Iterable[Metric], undated: float) -> Curve:
    """Return the curve of a job. `undated` is the time of points without one, as AWS's are.

    Of points with the same name and step, the last one counts: it is of the step as done again.
    """
    points: dict[PointKey, Point] = {}
    not_finite: dict[str, set[int]] = {}
    for metric in metrics:
        time = _seconds(metric.timestamp, undated)
        for measure in MEASURES:
            value = getattr(metric, measure)
            if value is None:
                continue
            name = f"{_curve_of(metric)}/{measure}"
            not_finite.setdefault(name, set()).discard(metric.step)
            points.pop((name, metric.step), None)
            if math.isfinite(value):
                points[name, metric.step] = Point(name, metric.step, float(value), time)
            else:
                not_finite[name].add(metric.step)
    gaps = {name: tuple(sorted(steps)) for name, steps in not_finite.items() if steps}
    return Curve(tuple(points.values()), gaps)


def _curve_of(metric: Metric) -> str:
    if metric.validation_set is not None:
        return f"{metric.split}/{metric.validation_set}"
    return metric.split


def _seconds(timestamp: str, undated: float) -> float:
    try:
        return datetime.fromisoformat(timestamp).timestamp()
    except ValueError:
        return undated


@dataclass(frozen=True)
class Difference:
    """What a tracker lacks of the curve, and whether it has values that the curve has not."""

    missing: Sequence[Point]
    is_outdated: bool


def compare(curve: Curve, sent: Mapping[PointKey, float], *, has_ended: bool) -> Difference:
    """Compare the curve with the values that a tracker has.

    While the job runs, a later step that the curve lacks is one that a resume is about to do again.
    """
    missing: list[Point] = []
    matched = 0
    for point in curve.points:
        known = sent.get(point.key)
        if known is None:
            missing.append(point)
            continue
        matched += 1
        is_speed = point.name.endswith(SPEED)
        if not is_speed and not math.isclose(known, point.value, rel_tol=TOLERANCE, abs_tol=1e-30):
            return Difference(curve.points, True)
    if has_ended and matched < len(sent):
        return Difference(curve.points, True)
    return Difference(missing, False)
