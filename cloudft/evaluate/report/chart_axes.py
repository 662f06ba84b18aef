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
    """The ticks of both axes; the first is the axis's begin, and the last its end."""

    x_ticks: Sequence[float]
    y_ticks: Sequence[float]

    def position(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point is drawn."""
        return (
            LEFT + (WIDTH - LEFT - RIGHT) * _share(x, self.x_ticks),
            HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * _share(y, self.y_ticks),
        )


def _share(value: float, ticks: Sequence[float]) -> float:
    """Return where a value is between the first tick (0) and the last (1)."""
    return (value - ticks[0]) / (ticks[-1] - ticks[0])


def choose_ticks(highest: float, *, whole: bool = False) -> list[float]:
    """Return round numbers from 0 to `highest` or above, 1, 2 or 5 times a power of ten apart.

    `whole` leaves out fractions. The steps are those of Heckbert ("Nice Numbers for Graph Labels",
    Graphics Gems, 1990).
    """
    if not math.isfinite(highest) or highest < 1e-9:
        return [0.0, 1.0]
    power = 10.0 ** math.floor(math.log10(highest / TICKS))
    steps = [n * power for n in (1, 2, 5, 10) if not whole or n * power >= 1] or [1.0]
    step = min(steps, key=lambda step: abs(highest / step - TICKS))
    count = math.ceil(highest / step - 1e-9)
    return [float(f"{n * step:.6g}") for n in range(max(1, count) + 1)]


def choose_range(lowest: float, highest: float) -> list[float]:
    """Return round numbers from 0, or from below a negative `lowest`, to `highest` or above."""
    if lowest >= 0:
        return choose_ticks(highest)
    above = choose_ticks(max(highest, -lowest))
    step = above[1]
    first, last = math.floor(lowest / step), max(0, math.ceil(highest / step))
    return [float(f"{n * step:.6g}") for n in range(first, last + 1)]


def draw_axes(axes: Axes, x_title: str, y_title: str) -> str:
    """Return grid lines, the labels of the ticks, and both titles. The titles are not escaped."""
    parts = []
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    for value in axes.y_ticks:
        _, y = axes.position(axes.x_ticks[0], value)
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
