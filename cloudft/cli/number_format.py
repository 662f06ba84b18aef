"""Measured numbers as text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timezone


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


def format_usd(usd: float | None) -> str:
    """An amount; what is not known is said to be unknown."""
    from cloudft.catalogue import cost

    return "unknown" if usd is None else cost.format_usd(usd)


def format_local_time(iso: str | None) -> str | None:
    """An ISO time as this machine's clock shows it."""
    if not iso:
        return None
    moment = datetime.fromisoformat(iso)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def format_gibibytes(count: int) -> str:
    """`2147483648` -> `2.0 GiB`."""
    return f"{count / 2**30:.1f} GiB"


def format_duration(seconds: float | None) -> str:
    """`75.2` -> `1:15`."""
    if seconds is None or not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
