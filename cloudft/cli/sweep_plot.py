"""Draw a sweep: the score by trial, and by each parameter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cloudft.errors import UsageError
from cloudft.sweep.records import TrialRecord
from cloudft.sweep.result import ParameterView, SweepResult
from cloudft.sweep.table import format_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 3
SIZE = (4.2, 3.2)
"""Inches of one chart."""
DONE, STOPPED, BEST, OWN = "#2f6fab", "#9aa3ad", "#c2410c", "#15803d"


def draw_sweep(result: SweepResult, to: Path) -> None:
    """Draw a sweep into a file (.png, .svg).

    Raise UsageError without matplotlib, without a score, or for a file that can't be written.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise UsageError(
            "plots need matplotlib, which is not installed", fix="pip install 'cloudft[plot]'"
        ) from error
    scored = [one for one in result.trials if one.is_scored]
    if not scored:
        raise UsageError("no trial has a score yet", fix="wait for the first trial.")
    rows = math.ceil((len(result.space) + 1) / COLUMNS)
    columns = min(COLUMNS, len(result.space) + 1)
    figure = Figure(figsize=(SIZE[0] * columns, SIZE[1] * rows), layout="constrained")
    charts = figure.subplots(rows, columns, squeeze=False).flatten()
    by_trial = charts[0]
    _draw_points(by_trial, result, [(one, one.number) for one in result.trials])
    best = [min(s.score or math.inf for s in scored[: n + 1]) for n in range(len(scored))]
    by_trial.step([one.number for one in scored], best, where="post", color=BEST, lw=1)
    by_trial.set(xlabel="trial", ylabel=result.metric, title="score by trial")
    by_trial.xaxis.set_major_locator(MaxNLocator(integer=True))
    for chart, parameter in zip(charts[1:], result.space, strict=False):
        _draw_parameter(chart, result, parameter)
    for chart in charts[len(result.space) + 1 :]:
        chart.set_axis_off()
    handles, labels = by_trial.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.suptitle(f"{result.name}: {len(scored)} complete trials")
    try:
        figure.savefig(to, dpi=150)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{to} can't be written: {error}", fix="name a .png or .svg file."
        ) from error


def _draw_parameter(chart: Axes, result: SweepResult, parameter: ParameterView) -> None:
    shown = [one for one in result.trials if parameter.name in one.values]
    shares = {one.name: one.share for one in result.importance.parameters}
    title = parameter.name
    if parameter.name in shares:
        title += f" ({shares[parameter.name]:.0%} of the variance)"
    if parameter.values:
        names = [format_value(value) for value in parameter.values]
        places = {value: number for number, value in enumerate(parameter.values)}
        pairs = [
            (one, places[one.values[parameter.name]])
            for one in shown
            if one.values[parameter.name] in places
        ]
        chart.set_xticks(range(len(names)), names)
        chart.set_xlim(-0.5, len(names) - 0.5)
    else:
        pairs = [(one, float(one.values[parameter.name])) for one in shown]  # type: ignore[misc]
        if parameter.log:
            chart.set_xscale("log")
    _draw_points(chart, result, pairs)
    chart.set(xlabel=parameter.field, title=title)


def _draw_points(
    chart: Axes, result: SweepResult, pairs: Sequence[tuple[TrialRecord, float]]
) -> None:
    """Draw trials as points: filled where complete, hollow where they were stopped."""
    groups: tuple[tuple[str, str, str, list[tuple[float, float]]], ...] = (
        ("complete", DONE, "o", []),
        ("stopped: best so far", STOPPED, "x", []),
        ("own values", OWN, "s", []),
        ("best", BEST, "*", []),
    )
    for one, x in pairs:
        losses = [point.loss for point in one.points]
        y = one.score if one.score is not None else min(losses, default=None)
        if y is None or one.same_as is not None:
            continue
        kind = 0 if one.outcome == "complete" else 1
        kind = 3 if one.number == result.best else 2 if one.number == result.own else kind
        groups[kind][3].append((x, y))
    for label, color, marker, points in groups:
        if points:
            size = 90 if marker == "*" else 26
            xs, ys = zip(*points, strict=True)
            chart.scatter(xs, ys, s=size, c=color, marker=marker, label=label, zorder=3)
    chart.grid(alpha=0.3)
