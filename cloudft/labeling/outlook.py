"""Say how much more labels are worth, from the learning curve of the project's job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import msgspec

from cloudft.errors import CloudftError
from cloudft.evaluate.diagnostics.data_scaling import predict_loss
from cloudft.evaluate.history import load_combined_evaluation
from cloudft.labeling.decided import collect_votes
from cloudft.labeling.project import LabelProject
from cloudft.storage.home import Home
from cloudft.storage.store import Store

MIN_POINTS = 3
FACTORS = (1.25, 1.5, 2.0)
MAX_FACTOR = 3
"""Numbers of training records for which the loss is predicted, as multiples of those of the job."""


class CurvePoint(msgspec.Struct):
    """A run of a learning curve: its records, and the loss of held-out records in nats a token."""

    records: int
    loss: float


class _CurveNumbers(msgspec.Struct):
    points: tuple[CurvePoint, ...] = ()


class GainStep(TypedDict):
    """What a number of further labels is expected to bring.

    `loss` is the predicted held-out loss in nats per token; `low` and `high` are the least and the
    most that the fits without one of the runs predict. `hours` is None before the first label.
    """

    more: int
    hours: float | None
    loss: float
    low: float
    high: float
    fall: float


class Outlook(TypedDict):
    """The expected gains, or why they are not known, and the command that measures them."""

    known: bool
    reason: str
    command: str | None
    records: int | None
    loss: float | None
    steps: list[GainStep]


def predict_gain(points: Sequence[tuple[int, float]], more: int) -> tuple[float, float, float]:
    """Return the loss expected with `more` records than the most of the points, lowest, highest.

    `points` are (records, held-out loss), at least three. A curve of a few runs has no standard
    error worth the name; the range is that of the fits which leave one run out, the last one kept.
    """
    ordered = sorted(points)
    count = ordered[-1][0] + more
    fits = [predict_loss(ordered, count)]
    if len(ordered) > MIN_POINTS:
        fits += [
            predict_loss([*ordered[:n], *ordered[n + 1 :]], count) for n in range(len(ordered) - 1)
        ]
    return fits[0], min(fits), max(fits)


def load_curve(numbers: object) -> list[tuple[int, float]]:
    """Return the points of a saved learning curve; none where it is not as it should be."""
    try:
        curve = msgspec.convert(numbers, _CurveNumbers)
    except msgspec.ValidationError:
        return []
    return [(point.records, point.loss) for point in curve.points]


def estimate_outlook(project: LabelProject, home: Home, seconds_per_label: float | None) -> Outlook:
    """Return what more labels are worth to the project's job, if its learning curve was measured.

    Whatever keeps it from being known is the `reason`.
    """
    job = project.settings.job
    if job is None:
        return _unknown("the project names no job", None)
    try:
        record = Store(home.jobs).find_by_reference(job)
    except CloudftError as error:
        return _unknown(error.message, None)
    command = f"cloudft evaluate {record.id} --learning-curve"
    try:
        evaluation = load_combined_evaluation(record.folder)
    except CloudftError:
        return _unknown(f"{record.id} has not been evaluated", command)
    diagnostic = evaluation["pitfalls"].get("data") if "pitfalls" in evaluation else None
    points = load_curve(diagnostic)
    if len(points) < MIN_POINTS:
        return _unknown(f"the learning curve of {record.id} has not been measured", command)
    count, loss = max(points)
    steps = []
    choices = {round(count * (factor - 1)) for factor in FACTORS}
    left = len(project.records.keys) - len(collect_votes(project))
    choices |= {left} if 0 < left <= count * MAX_FACTOR else set()
    for more in sorted(choices - {0}):
        expected, low, high = predict_gain(points, more)
        hours = None if seconds_per_label is None else more * seconds_per_label / 3600
        step: GainStep = {
            "more": more,
            "hours": hours,
            "loss": expected,
            "low": low,
            "high": high,
            "fall": 1 - expected / loss if loss else 0.0,
        }
        steps.append(step)
    return {
        "known": True,
        "reason": "",
        "command": command,
        "records": count,
        "loss": loss,
        "steps": steps,
    }


def _unknown(reason: str, command: str | None) -> Outlook:
    return {
        "known": False,
        "reason": reason,
        "command": command,
        "records": None,
        "loss": None,
        "steps": [],
    }
