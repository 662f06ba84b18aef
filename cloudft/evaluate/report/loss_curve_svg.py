"""Loss curves as a drawing for a page: one SVG element in the page's own colours."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cloudft.types import Metric

WIDTH, HEIGHT, LEFT, BELOW = 720, 300, 56, 36
TICKS = 5


def draw_loss_curve(points: Sequence[Metric]) -> str | None:
    """Training as a line, validation as a line with points; None without any finite point."""
    known = [p for p in points if math.isfinite(p.loss)]
    if not known:
        return None
    last = max(1, max(p.step for p in known))
    top = _round_up(max(p.loss for p in known))

    def place(point: Metric) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - 12) * point.step / last
        return x, 10 + (HEIGHT - BELOW - 10) * (1 - point.loss / top)

    parts = [_axes(last, top)]
    for split, style in (
        ("train", 'stroke="currentColor" stroke-opacity=".55"'),
        ("validation", 'stroke="rgb(var(--mark))" stroke-width="2.5"'),
    ):
        line = [place(p) for p in sorted(known, key=lambda p: p.step) if p.split == split]
        if line:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in line)
            parts.append(f'<polyline points="{path}" fill="none" {style}/>')
        if split == "validation":
            parts += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="rgb(var(--mark))"/>'
                for x, y in line
            ]
    told = f"Loss by step, {len(known)} points, from {known[0].loss:.3f} to {known[-1].loss:.3f}"
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{told}">'
        f"<title>{told}</title>{''.join(parts)}</svg>"
    )


def _round_up(value: float) -> float:
    """A round number not below `value`: 1, 2, 2.5 or 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(n * power for n in (1, 1.5, 2, 2.5, 3, 4, 5, 7.5, 10) if n * power >= value)


def _axes(last: int, top: float) -> str:
    parts = []
    text = 'fill="currentColor" font-size="13"'
    for n in range(TICKS):
        y = 10 + (HEIGHT - BELOW - 10) * (1 - n / (TICKS - 1))
        x = LEFT + (WIDTH - LEFT - 12) * n / (TICKS - 1)
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - 12}" y1="{y:.1f}" y2="{y:.1f}" stroke="currentColor"'
            ' stroke-opacity=".15"/>'
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" {text}>'
            f"{top * n / (TICKS - 1):.3g}</text>"
            f'<text x="{x:.1f}" y="{HEIGHT - 14}" text-anchor="middle" {text}>'
            f"{round(last * n / (TICKS - 1)) + (1 if n else 0)}</text>"
        )
    return "".join(parts)
