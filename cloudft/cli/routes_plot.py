"""Draw the total cost of routes against the requests of a month, as an image file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudft.errors import UsageError

if TYPE_CHECKING:
    from cloudft.jobs.routes import Comparison, Route

MAX_ROUTES = 8
"""Routes of a picture; the dearest at the given traffic are left out of it."""
POINTS_PER_DECADE = 40
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7f7f7f")
"""The palette of Okabe and Ito, which differ for color-blind people too."""
STYLES = {
    "bedrock-distillation": (0, (5, 2)),
    "sagemaker-import": (0, (4, 4)),
}
"""Dashes with gaps, for these routes cost about the same as others, whose lines show through."""
LOWEST, HIGHEST, LAST = 100, 10_000_000, 10**12
"""Requests a month where the picture begins, where it ends at least, and where at most."""
HEADROOM = 10
"""Factor by which the picture is higher than its lines, for the labels of points at their top."""
LABEL_GAP = 0.042
"""Smallest distance of two labels, as a share of the picture's height."""


def draw_routes(comparison: Comparison, to: Path) -> list[str]:
    """Draw the routes into `to` (.png, .svg); return the names of those that are left out.

    Raise UsageError without matplotlib, and for a file that can't be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(
            "plots need matplotlib, which is not installed", fix="pip install 'cloudft[plot]'"
        ) from error
    known = [r for r in comparison.routes if r.total_usd(comparison.months) is not None]
    if not known:
        raise UsageError("no route has a known cost", fix="state the missing prices.")
    shown = known[:MAX_ROUTES]
    highest = _highest(shown, comparison)
    figure = Figure(figsize=(11, 6.2), layout="constrained")
    axes = figure.add_subplot()
    ends = [
        _draw_route(axes, route, (comparison.months, highest), color)
        for route, color in zip(shown, COLORS, strict=False)
    ]
    _set_axes(axes, comparison, highest)
    _place_labels(axes, ends)
    try:
        figure.savefig(to, dpi=150)
    except (OSError, ValueError) as error:
        fix = "name a .png or .svg file."
        raise UsageError(f"{to} can't be written: {error}", fix=fix) from error
    return [route.name for route in comparison.routes if route not in shown]


def _highest(routes: Sequence[Route], comparison: Comparison) -> int:
    """Return the requests at the right edge: beyond the traffic and the break-even points."""
    months = comparison.months
    evens = [even for route in routes for even in [_break_even(route, months)] if even is not None]
    wanted = max(HIGHEST, 10 * comparison.traffic.requests, *(3 * even for even in evens))
    return min(LAST, int(10 ** math.ceil(math.log10(wanted))))


def _break_even(route: Route, months: int) -> int | None:
    """Return the requests a month from which a provisioned unit is cheaper than on demand."""
    evens = [s.break_even_requests for s in route.servings if s.term_months <= months]
    return min((even for even in evens if even is not None), default=None)


def _requests(highest: int) -> list[float]:
    decades = math.log10(highest / LOWEST)
    count = round(decades * POINTS_PER_DECADE)
    return [LOWEST * 10 ** (decades * n / count) for n in range(count + 1)]


def _draw_route(
    axes: Any, route: Route, size: tuple[int, int], color: str
) -> tuple[float, str, str]:
    """Draw one route over months and requests, with its break-even point.

    Return where it ends, its name and its color.
    """
    months, highest = size
    points = [(n, route.total_usd(months, n) or 0.0) for n in _requests(highest)]
    style = STYLES.get(route.kind, "-")
    axes.plot(*zip(*points, strict=True), color=color, lw=1.8, ls=style)
    even = _break_even(route, months)
    is_drawn = any(line.get_xdata()[0] == even for line in axes.lines)
    if even is not None and LOWEST <= even <= highest and not is_drawn:
        total = route.total_usd(months, even) or 0.0
        axes.plot([even], [total], "o", color=color, ms=7, mec="white", mew=1.2, zorder=5)
        axes.annotate(
            _short(even),
            (even, total),
            textcoords="offset points",
            xytext=(2, 6),
            rotation=40,
            rotation_mode="anchor",
            fontsize=8,
            color=color,
        )
    return points[-1][1], route.name, color


def _short(value: float, _: object = None) -> str:
    """Return a number with its scale in words."""
    for scale, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if value >= scale:
            return f"{value / scale:.3g} {word}"
    return f"{value:,.0f}"


def _set_axes(axes: Any, comparison: Comparison, highest: int) -> None:
    from matplotlib.ticker import FuncFormatter

    traffic, months = comparison.traffic, comparison.months
    period = "1 month" if months == 1 else f"{months} months"
    axes.set(
        xscale="log",
        yscale="log",
        xlim=(LOWEST, highest),
        xlabel="requests a month",
        ylabel=f"USD for training and {period} of storage and serving",
    )
    axes.set_title(
        f"A request has {traffic.input_tokens:,} tokens in and {traffic.output_tokens:,} out."
        " Point: from here on a provisioned unit is cheaper than on demand.\n"
        "One unit, or one copy of an imported model, answers all requests: what it can take is not"
        f" published. Dotted: {traffic.requests:,} requests.",
        fontsize=9,
        loc="left",
    )
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * HEADROOM)
    axes.xaxis.set_major_formatter(FuncFormatter(_short))
    axes.yaxis.set_major_formatter(FuncFormatter(_short))
    axes.axvline(max(LOWEST, traffic.requests), color="#999999", lw=0.8, ls=":")
    axes.tick_params(labelsize=8)
    axes.grid(which="major", alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def spread(places: Sequence[float]) -> list[float]:
    """Return ascending places of labels, at least LABEL_GAP apart and none above the top, 1."""
    spaced: list[float] = []
    for place in places:
        spaced.append(max(place, spaced[-1] + LABEL_GAP) if spaced else place)
    top = 1.0
    for number in reversed(range(len(spaced))):
        spaced[number] = min(spaced[number], top)
        top = spaced[number] - LABEL_GAP
    return spaced


def _place_labels(axes: Any, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write each route's name beside its end, moved apart where two are too near."""
    ordered = sorted(ends)
    low, high = (math.log10(value) for value in axes.get_ylim())
    places = [(math.log10(max(usd, 1e-9)) - low) / (high - low) for usd, _, _ in ordered]
    for place, (_, name, color) in zip(spread(places), ordered, strict=True):
        axes.annotate(
            name,
            (1.0, place),
            xycoords="axes fraction",
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=color,
            annotation_clip=False,
        )
