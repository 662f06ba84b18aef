"""Draw a job's curves for a page: one SVG element in the page's own colors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from cloudft.evaluate.report.chart_axes import (
    HEIGHT,
    RIGHT,
    WIDTH,
    Axes,
    choose_range,
    choose_ticks,
    draw_axes,
)
from cloudft.jobs.curve_measure import choose_measure
from cloudft.types import Metric, Split

MAX_POINTS = 1000
"""Points of a line; of more, each group's lowest and highest are drawn."""
Curve = tuple[Split, str | None]
"""What a curve is of: a split, and one of several validation sets."""
LEGEND = (
    f'<g class="legend"><path class="train" d="M{WIDTH - RIGHT - 330},12h28"/>'
    f'<text x="{WIDTH - RIGHT - 296}" y="12" dy=".35em">training</text>'
    f'<path class="validation" d="M{WIDTH - RIGHT - 164},12h28"/>'
    f'<circle cx="{WIDTH - RIGHT - 150}" cy="12" r="4"/>'
    f'<text x="{WIDTH - RIGHT - 130}" y="12" dy=".35em">validation</text></g>'
)


def draw_loss_curve(points: Sequence[Metric]) -> str | None:
    """Return training as a line and validation as a dashed line with points, by step from 1.

    Of a job that learns from rewards they show the reward, of others the loss. None when no value
    is finite.
    """
    measure = choose_measure(points)
    values = {p: value for p in points if (value := measure.value_of(p)) is not None}
    finite = [p for p in points if math.isfinite(values.get(p, math.nan))]
    if not finite:
        return None
    drawn = [values[p] for p in finite]
    axes = Axes(
        choose_ticks(max(p.step + 1 for p in finite), whole=True),
        choose_range(min(drawn), max(drawn)),
    )
    parts = [draw_axes(axes, "optimizer step", measure.label), LEGEND]
    described = []
    for (split, validation_set), name, curve in _curves(finite):
        line = [axes.position(p.step + 1, values[p]) for p in _thin(curve, values)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in line)
        parts.append(f'<polyline class="{split}" points="{path}"/>')
        if split == "validation" or len(curve) == 1:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"/>' for x, y in line]
        if validation_set is not None:
            x, y = line[-1]
            label = f'<text x="{x:.1f}" y="{y - 8:.1f}" text-anchor="end">{validation_set}</text>'
            parts.append(label)
        first, last = curve[0], curve[-1]
        described.append(
            f"{name}: {len(curve)} points, from {values[first]:.3f} at step {first.step + 1}"
            f" to {values[last]:.3f} at step {last.step + 1}."
        )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="loss-title loss-text">'
        f'<title id="loss-title">{measure.title} by optimizer step</title>'
        f'<desc id="loss-text">{" ".join(described)}</desc>{"".join(parts)}</svg>'
    )


def _curves(points: Sequence[Metric]) -> Iterator[tuple[Curve, str, list[Metric]]]:
    """Yield each curve that has points: what it is of, its name, and its points by step."""
    sets = sorted({p.validation_set for p in points if p.validation_set is not None})
    named: dict[Curve, str] = {("train", None): "Training", ("validation", None): "Validation"}
    named |= {("validation", name): f"Validation {name}" for name in sets}
    for key, title in named.items():
        curve = [p for p in points if (p.split, p.validation_set) == key]
        if curve:
            yield key, title, sorted(curve, key=lambda p: p.step)


def _thin(curve: Sequence[Metric], values: Mapping[Metric, float]) -> list[Metric]:
    """Return at most about `MAX_POINTS` points, with every peak and the last point."""
    size = math.ceil(2 * len(curve) / MAX_POINTS)
    if size <= 2:
        return list(curve)
    kept = []
    for start in range(0, len(curve), size):
        group = curve[start : start + size]
        ends = {min(group, key=values.__getitem__), max(group, key=values.__getitem__)}
        kept += sorted(ends, key=lambda p: p.step)
    return [*kept, curve[-1]] if kept[-1] != curve[-1] else kept
