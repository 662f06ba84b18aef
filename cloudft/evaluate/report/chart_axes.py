"""Axes of charts: round tick values, and the SVG of grid lines, labels and titles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 32, 36, 58
"""Margins around the plot, in the units of its size; the style sets the size of the labels."""
TICKS = 6
"""Number of intervals that an axis has, about."""


class Axes(NamedTuple):
    """The ticks of both axes, from one end of each to the other. x begins at 0."""

    x_ticks: Sequence[float]
    y_ticks: Sequence[float]

    def position(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point is drawn."""
        lowest = self.y_ticks[0]
        height = (y - lowest) / (self.y_ticks[-1] - lowest)
        return (
            LEFT + (WIDTH - LEFT - RIGHT) * x / self.x_ticks[-1],
            HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * height,
        )


def choose_ticks(highest: float, *, lowest: float = 0.0, whole: bool = False) -> list[float]:
    """Return round numbers from 0 to `highest` or above, 1, 2 or 5 times a power of ten apart.

    They begin below 0 where `lowest` is negative. `whole` leaves out fractions. The steps are those
    of Heckbert ("Nice Numbers for Graph Labels", Graphics Gems, 1990).
    """
    lowest = min(lowest, 0.0)
    span = max(highest, 0.0) - lowest
    if not math.isfinite(span) or span < 1e-9:
        return [0.0, 1.0]
    power = 10.0 ** math.floor(math.log10(span / TICKS))
    steps = [n * power for n in (1, 2, 5, 10) if not whole or n * power >= 1] or [1.0]
    step = min(steps, key=lambda step: abs(span / step - TICKS))
    first, last = math.floor(lowest / step + 1e-9), math.ceil(max(highest, 0.0) / step - 1e-9)
    return [float(f"{n * step:.6g}") for n in range(first, max(first + 1, last) + 1)]


def draw_axes(axes: Axes, x_title: str, y_title: str) -> str:
    """Return grid lines, the labels of the ticks, and both titles. The titles are not escaped."""
    parts = []
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    for value in axes.y_ticks:
        _, y = axes.position(0, value)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{LEFT - 8}" y="{y:.1f}" dy=".35em" text-anchor="end">{_label(value)}</text>'
        )
    for value in axes.x_ticks:
        x, _ = axes.position(value, axes.y_ticks[0])
        parts.append(
            f'<text x="{x:.1f}" y="{bottom + 8}" dy=".8em" text-anchor="middle">'
            f"{_label(value)}</text>"
        )
    parts.append(f'<text x="{LEFT}" y="{TOP - 18}">{y_title}</text>')
    parts.append(f'<text x="{right}" y="{HEIGHT - 6}" text-anchor="end">{x_title}</text>')
    return "".join(parts)


def _label(value: float) -> str:
    return f"{value:,.6g}"
