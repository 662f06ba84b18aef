"""Where the lines and axes of a sweep's parallel coordinates are: one axis for each parameter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from cloudft.sweep.records import OWN_VALUES, TrialRecord, Value
from cloudft.sweep.result import ParameterView, SweepResult
from cloudft.sweep.space import Kind, SpaceParameter
from cloudft.sweep.table import format_value, trial_name

WIDTH, HEIGHT = 960, 320
LEFT, RIGHT, TOP, BOTTOM = 70, 70, 36, 20
QUARTERS = 4
TICKS = 5


@dataclass(frozen=True)
class Tick:
    """A value beside an axis."""

    y: float
    text: str


@dataclass(frozen=True)
class Axis:
    """One axis; `label` is its name as short as it is unique, `ticks` are from its lower end."""

    name: str
    label: str
    x: float
    ticks: tuple[Tick, ...]


@dataclass(frozen=True)
class Line:
    """A trial's line. `at` is its place on each axis, from 0 to 100, for brushing by a script."""

    number: int
    name: str
    points: str
    css: str
    at: tuple[float, ...]
    title: str


@dataclass(frozen=True)
class ParallelCoordinates:
    """The whole drawing. Lines of the better trials are last, so above the others."""

    axes: tuple[Axis, ...] = ()
    lines: tuple[Line, ...] = ()
    has_best: bool = False
    width: int = WIDTH
    height: int = HEIGHT
    top: int = TOP
    bottom: int = field(default=HEIGHT - BOTTOM)


def draw_parallel_coordinates(result: SweepResult) -> ParallelCoordinates:
    """Return the drawing of the trials that have a value on every axis."""
    parameters = [_as_parameter(view) for view in result.space]
    shown = [
        (one, score, places)
        for one in result.trials
        if one.number != OWN_VALUES and one.same_as is None
        if (score := best_loss(one)) is not None
        if (places := _places(one, parameters)) is not None
    ]
    if not shown:
        return ParallelCoordinates()
    scores = sorted(score for _, score, _ in shown)
    count = len(parameters) + 1
    xs = [LEFT + n * (WIDTH - LEFT - RIGHT) / (count - 1) for n in range(count)]
    labels = _short_labels([p.name for p in parameters])
    axes = [
        Axis(p.name, label, x, _ticks(p))
        for p, label, x in zip(parameters, labels, xs, strict=False)
    ]
    low, high = scores[0], scores[-1]
    axes.append(Axis(result.metric, result.metric, xs[-1], _score_ticks(low, high)))
    lines = []
    for one, score, places in sorted(shown, key=lambda each: -each[1]):
        at = (*places, (score - low) / (high - low) if high > low else 0.5)
        points = " ".join(f"{x:.1f},{_y(p):.1f}" for x, p in zip(xs, at, strict=True))
        quarter = min(QUARTERS - 1, scores.index(score) * QUARTERS // len(scores)) + 1
        css = f"line q{quarter}" + ("" if one.is_scored else " stopped")
        css += " best" if one.number == result.best else ""
        css += " own" if one.number == result.own else ""
        values = ", ".join(f"{k} {format_value(v)}" for k, v in one.values.items())
        title = f"trial {trial_name(one.number)}, {one.outcome}: {score:.4f} ({values})"
        scaled = tuple(round(100 * p, 2) for p in at)
        lines.append(Line(one.number, trial_name(one.number), points, css, scaled, title))
    has_best = any(line.number == result.best for line in lines)
    return ParallelCoordinates(tuple(axes), tuple(lines), has_best)


def _short_labels(names: Sequence[str]) -> list[str]:
    """Return the last part of each dotted name; the whole where another name ends alike."""
    ends = [name.rpartition(".")[2] for name in names]
    return [end if ends.count(end) == 1 else name for name, end in zip(names, ends, strict=True)]


def best_loss(record: TrialRecord) -> float | None:
    """Return a trial's score; of one that was stopped, its lowest loss so far."""
    if record.score is not None:
        return record.score
    return min((p.loss for p in record.points if math.isfinite(p.loss)), default=None)


def _as_parameter(view: ParameterView) -> SpaceParameter:
    kind: Kind = "float" if view.kind == "float" else "int" if view.kind == "int" else "other"
    path = tuple(view.field.split("."))
    return SpaceParameter(view.name, path, kind, view.low, view.high, view.log, tuple(view.values))


def _places(record: TrialRecord, parameters: Sequence[SpaceParameter]) -> list[float] | None:
    places = []
    for parameter in parameters:
        value = record.values.get(parameter.name)
        at = None if value is None else parameter.position(value)
        if at is None:
            return None
        places.append(at)
    return places


def _y(place: float) -> float:
    """Return the height of a place: 0 is at the bottom."""
    return HEIGHT - BOTTOM - place * (HEIGHT - TOP - BOTTOM)


def _ticks(parameter: SpaceParameter) -> tuple[Tick, ...]:
    values: list[Value]
    if parameter.values:
        values = list(parameter.values)
    else:
        assert parameter.low is not None and parameter.high is not None
        low, high = parameter.low, parameter.high
        shares = [n / (TICKS - 1) for n in range(TICKS)]
        if parameter.log:
            values = [low * (high / low) ** share for share in shares]
        elif parameter.kind == "int":
            values = sorted({round(low + share * (high - low)) for share in shares})
        else:
            values = [low + share * (high - low) for share in shares]
        values[0], values[-1] = low, high
    places = [(parameter.position(value), value) for value in values]
    return tuple(Tick(_y(at), _short(value)) for at, value in places if at is not None)


def _score_ticks(low: float, high: float) -> tuple[Tick, ...]:
    if low == high:
        return (Tick(_y(0.5), f"{low:.4g}"),)
    shares = [n / (TICKS - 1) for n in range(TICKS)]
    return tuple(Tick(_y(share), f"{low + share * (high - low):.4g}") for share in shares)


def _short(value: Value) -> str:
    if isinstance(value, float):
        return f"{value:.2g}" if value != int(value) else str(int(value))
    return format_value(value)
