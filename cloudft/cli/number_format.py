"""Measured numbers as text."""

from __future__ import annotations

from collections.abc import Mapping


def format_number(value: float | None) -> str:
    """Three digits behind the point, or none for large numbers."""
    if value is None:
        return "?"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"


def format_signed(value: float | None) -> str:
    """With its sign."""
    return "?" if value is None else f"{value:+.3f}" if abs(value) < 100 else f"{value:+,.0f}"


def format_interval(delta: Mapping[str, float | None]) -> str:
    """`-0.010 to +0.020`, or nothing."""
    low, high = delta["low"], delta["high"]
    return "" if low is None or high is None else f"{format_signed(low)} to {format_signed(high)}"
