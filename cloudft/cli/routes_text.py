"""Print the comparison of routes: a table, the break-even points, and what is not known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudft.catalogue.serving_cost import Serving
    from cloudft.jobs.routes import Comparison, Route


def comparison_text(comparison: Comparison) -> str:
    """Return the routes, the cheapest first, with what they assume."""
    from cloudft.cli.output import format_table

    traffic, months = comparison.traffic, comparison.months
    columns = (
        "ROUTE",
        "TRAINING",
        "STORAGE A MONTH",
        "SERVING A MONTH",
        f"TOTAL OF {months} MONTH{'' if months == 1 else 'S'}",
    )
    lines = [
        f"{traffic.requests:,} requests a month of {traffic.input_tokens:,} tokens in and"
        f" {traffic.output_tokens:,} out ({comparison.lengths_from})",
        format_table(columns, (_row(route, months) for route in comparison.routes)),
    ]
    for route in comparison.routes:
        lines += ["", route.name, *(f"  {line}" for line in _details(route))]
    if comparison.left_out:
        lines += ["", "left out:"]
        lines += [f"  {model}: {reason}" for model, reason in comparison.left_out.items()]
    lines += ["", "assumed:", *(f"  {text}" for text in comparison.assumptions)]
    return "\n".join(lines)


def _row(route: Route, months: int) -> tuple[Any, ...]:
    serving = route.cheapest(months)
    most = route.training_at_most or (serving is not None and serving.at_most)
    return (
        route.name,
        _amount(route.training_usd, at_most=route.training_at_most),
        _amount(route.storage_usd_per_month),
        _serving_cell(route, months),
        _amount(route.total_usd(months), at_most=most),
    )


def _amount(usd: float | None, *, at_most: bool = False) -> str:
    from cloudft.cli.number_format import format_usd

    return f"{'at most ' if at_most and usd else ''}{format_usd(usd)}"


def _serving_cell(route: Route, months: int) -> str:
    serving = route.cheapest(months)
    if serving is None:
        return "unknown"
    return f"{_amount(serving.usd_per_month, at_most=serving.at_most)} ({serving.name})"


def _details(route: Route) -> Iterator[str]:
    if route.region:
        yield f"Region: {route.region}"
    yield f"time: {route.time}"
    if route.price_source:
        yield f"price: {route.price_source}"
    for serving in route.servings:
        yield f"serving {serving.name}: {_serving_text(serving)}"
    yield from (f"note: {text}" for text in route.notes)
    servings = (serving.unknown for serving in route.servings)
    for text in dict.fromkeys((*route.unknown, *servings)):
        if text:
            yield f"unknown: {text}"


def _serving_text(serving: Serving) -> str:
    text = f"{_amount(serving.usd_per_month, at_most=serving.at_most)} a month"
    if serving.kind == "on-demand" and serving.usd_per_request:
        text += f", {serving.usd_per_request * 1000:.4g} USD per 1,000 requests"
    if serving.kind == "import" and serving.usd_per_request:
        text += f", {_amount(serving.usd_per_request)} for each window with a request"
    if serving.lowest is not None:
        text += f", {_amount(serving.lowest)} at least"
    if serving.break_even_requests is not None:
        text += f"; cheaper than on demand from {serving.break_even_requests:,} requests a month"
    return text
