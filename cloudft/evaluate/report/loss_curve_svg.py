"""Draw loss curves for a page: one SVG element in the page's own colors."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cloudft.types import Metric

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 10, 36
"""Margins around the plot, in the same units as its size."""
TICKS = 5


def draw_loss_curve(points: Sequence[Metric]) -> str | None:
    """Return training as a line and validation as a line with points.

    None when no loss is finite.
    """
    finite = [p for p in points if math.isfinite(p.loss)]
    if not finite:
        return None
    last_step = max(1, max(p.step for p in finite))
    max_loss = _round_up(max(p.loss for p in finite))

    def position(point: Metric) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * point.step / last_step
        return x, TOP + (HEIGHT - BOTTOM - TOP) * (1 - point.loss / max_loss)

    parts = [_axes(last_step, max_loss)]
    for split, style in (
        ("train", 'stroke="currentColor" stroke-opacity=".55"'),
        ("validation", 'stroke="rgb(var(--mark))" stroke-width="2.5"'),
    ):
        in_order = sorted((p for p in finite if p.split == split), key=lambda p: p.step)
        line = [position(p) for p in in_order]
        if line:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in line)
            parts.append(f'<polyline points="{path}" fill="none" {style}/>')
        if split == "validation":
            parts += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="rgb(var(--mark))"/>'
                for x, y in line
            ]
    first, last = finite[0].loss, finite[-1].loss
    label = f"Loss by step, {len(finite)} points, from {first:.3f} to {last:.3f}"
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        f"<title>{label}</title>{''.join(parts)}</svg>"
    )


def _round_up(value: float) -> float:
    """Return the next round number: 1, 1.5, 2, 2.5, 3, 4, 5, 7.5 or 10 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(n * power for n in (1, 1.5, 2, 2.5, 3, 4, 5, 7.5, 10) if n * power >= value)


def _axes(last_step: int, max_loss: float) -> str:
    """Return the grid lines and labels of both axes. Steps are shown from 1."""
    parts = []
    text = 'fill="currentColor" font-size="13"'
    for n in range(TICKS):
        y = TOP + (HEIGHT - BOTTOM - TOP) * (1 - n / (TICKS - 1))
        x = LEFT + (WIDTH - LEFT - RIGHT) * n / (TICKS - 1)
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"'
            ' stroke="currentColor" stroke-opacity=".15"/>'
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" {text}>'
            f"{max_loss * n / (TICKS - 1):.3g}</text>"
            f'<text x="{x:.1f}" y="{HEIGHT - 14}" text-anchor="middle" {text}>'
            f"{round(last_step * n / (TICKS - 1)) + (1 if n else 0)}</text>"
        )
    return "".join(parts)
