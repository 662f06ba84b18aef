"""Charts as pages get them: the JSON that chart.js reads, and the same drawn without a script."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, Literal

from cloudft.evaluate.report.chart_axes import (
    TOP,
    Axes,
    choose_range,
    choose_ticks,
    draw_axes,
)
from cloudft.jobs.curves.columns import XY

if TYPE_CHECKING:
    from markupsafe import Markup

Kind = Literal["train", "validation", ""]
COLORS = 8
"""Colors of series in chart.css; after the last one they begin again."""
DOTS_UP_TO = 60
"""Points of a validation curve that are dots as well."""
MAX_TICKS = 50
_numbers = count()


@dataclass(frozen=True)
class Series:
    """One curve of a chart. A point without a value is not finite: a gap with a mark.

    `color` is the number of its color, from 0, where several curves share one.
    """

    name: str
    points: XY
    kind: Kind = ""
    color: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what chart.js reads."""
        color = {} if self.color is None else {"color": self.color}
        return {"name": self.name, "kind": self.kind, "points": self.points, **color}


@dataclass(frozen=True)
class Chart:
    """Curves over one axis. With `partial`, more of them is being read: ask again in a second."""

    title: str
    y: str
    series: Sequence[Series]
    x: str = "optimizer step"
    partial: bool = False
    notes: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """Return what chart.js reads."""
        return {
            "title": self.title,
            "x": self.x,
            "y": self.y,
            "partial": self.partial,
            "notes": list(self.notes),
            "series": [one.to_json() for one in self.series],
        }


def draw_chart(chart: Chart) -> Markup:
    """Return the chart as SVG for a page, in the colors of chart.css."""
    from markupsafe import Markup, escape

    drawn = [one for one in chart.series if any(y is not None for _, y in one.points)]
    if not drawn:
        return Markup('<p class="soft">No points yet.</p>')
    axes = _choose_axes(drawn)
    number = next(_numbers)
    parts = [draw_axes(axes, str(escape(chart.x)), str(escape(chart.y)))]
    for position, one in enumerate(drawn):
        color = position if one.color is None else one.color
        parts += _draw_series(axes, one, color % COLORS)
    names = ", ".join(f"{one.name}: {len(one.points)} points" for one in drawn)
    head = Markup(
        '<svg viewBox="0 0 720 300" role="img" aria-labelledby="chart-{n}-title chart-{n}-text">'
        '<title id="chart-{n}-title">{title}</title><desc id="chart-{n}-text">{names}</desc>'
    ).format(n=number, title=chart.title, names=names)
    return head + Markup("".join(parts)) + Markup("</svg>")


def _choose_axes(drawn: Sequence[Series]) -> Axes:
    steps = [x for one in drawn for x, y in one.points if y is not None]
    values = [y for one in drawn for _, y in one.points if y is not None]
    return Axes(choose_ticks(max(steps), whole=True), choose_range(min(values), max(values)))


def _draw_series(axes: Axes, series: Series, color: int) -> Iterator[str]:
    kind = f" {series.kind}" if series.kind else ""
    for line in _unbroken(series.points):
        places = [axes.position(x, y) for x, y in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        yield f'<polyline class="series c{color}{kind}" points="{path}"/>'
        if len(line) == 1 or (series.kind == "validation" and len(series.points) <= DOTS_UP_TO):
            for x, y in places:
                yield f'<circle class="c{color}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
    for step, value in series.points:
        if value is None:
            x, _ = axes.position(step, axes.y_ticks[0])
            yield f'<path class="gap c{color}" d="M{x - 3:.1f},{TOP - 3}l6,6m0,-6l-6,6"/>'


def _unbroken(points: XY) -> Iterator[list[tuple[int, float]]]:
    """Yield the parts of a curve between values that are not finite."""
    line: list[tuple[int, float]] = []
    for x, y in points:
        if y is not None:
            line.append((x, y))
        elif line:
            yield line
            line = []
    if line:
        yield line
