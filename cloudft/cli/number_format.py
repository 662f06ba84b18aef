"""Format numbers, amounts, sizes and times as text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timezone


def format_number(value: float | None) -> str:
    """Return three decimals, or none from 100 on; `?` for None."""
    if value is None:
        return "?"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"


def format_signed(value: float | None) -> str:
    """Return the number with its sign, formatted as `format_number` does."""
    return "?" if value is None else f"{value:+.3f}" if abs(value) < 100 else f"{value:+,.0f}"


def format_interval(delta: Mapping[str, float | None]) -> str:
    """Return `-0.010 to +0.020`, or an empty text without an interval."""
    low, high = delta["low"], delta["high"]
    return "" if low is None or high is None else f"{format_signed(low)} to {format_signed(high)}"


def format_usd(usd: float | None) -> str:
    """Return an amount in USD, or `unknown` for None."""
    from cloudft.catalogue import cost

    return "unknown" if usd is None else cost.format_usd(usd)


def format_local_time(iso: str | None) -> str | None:
    """Return an ISO time in this machine's time zone; None for no time."""
    if not iso:
        return None
    moment = datetime.fromisoformat(iso)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def format_gibibytes(count: int) -> str:
    """Return bytes as GiB: `2147483648` -> `2.0 GiB`."""
    return f"{count / 2**30:.1f} GiB"


def format_duration(seconds: float | None) -> str:
    """Return seconds as minutes or hours: `75.2` -> `1:15`; `?` for None."""
    if seconds is None or not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
