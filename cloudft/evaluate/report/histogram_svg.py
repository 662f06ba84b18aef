"""Draw a histogram for a page: one SVG element in the page's own colors."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cloudft.evaluate.report.chart_axes import HEIGHT, TOP, WIDTH, Axes, choose_ticks, draw_axes

LABEL_ROOM = 0.8
"""Share of the width up to which a label is written on the right of its line."""


def draw_histogram(
    edges: Sequence[float], counts: Sequence[int], limit: int | None, number: int = 0
) -> str:
    """Return the numbers of records by their tokens, with a line at `limit`, if it is within.

    `edges` are the bounds of the bins: one more than `counts`. `number` makes the ids of several
    histograms on a page differ.
    """
    axes = Axes(choose_ticks(edges[-1]), choose_ticks(max(counts), whole=True))
    parts = [draw_axes(axes, "tokens of a record", "records")]
    for left, right, count in zip(edges, edges[1:], counts, strict=False):
        x, y = axes.position(left, count)
        end, bottom = axes.position(right, 0)
        parts.append(
            f'<rect class="bin" x="{x:.1f}" y="{y:.1f}" width="{max(1.0, end - x - 1):.1f}"'
            f' height="{bottom - y:.1f}"/>'
        )
    if limit is not None and limit < axes.x_ticks[-1]:
        parts.append(_limit_line(axes, limit))
    fewest, most = math.ceil(edges[0]), math.floor(edges[-1])
    text = (
        f"{sum(counts):,} records of {fewest:,} to {most:,} tokens; the tallest of {len(counts)}"
        f" bars has {max(counts):,}."
    )
    names = f"tokens-title-{number} tokens-text-{number}".split()
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{" ".join(names)}">'
        f'<title id="{names[0]}">Records by number of tokens</title>'
        f'<desc id="{names[1]}">{text}</desc>{"".join(parts)}</svg>'
    )


def _limit_line(axes: Axes, limit: int) -> str:
    x, bottom = axes.position(limit, 0)
    is_left = limit < LABEL_ROOM * axes.x_ticks[-1]
    anchor, shift = ("start", 6) if is_left else ("end", -6)
    return (
        f'<path class="limit" d="M{x:.1f},{TOP}V{bottom:.1f}"/>'
        f'<text class="limit" x="{x + shift:.1f}" y="{TOP}" dy=".8em" text-anchor="{anchor}">'
        f"cut at {limit:,}</text>"
    )
