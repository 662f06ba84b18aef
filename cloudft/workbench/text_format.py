"""Format amounts, times and scores for pages."""

from __future__ import annotations

import math
from datetime import datetime, timezone

from cloudft.catalogue.cost import format_usd
from cloudft.jobs.lifecycle import Job
from cloudft.types import JobState, StatusDetails
from cloudft.workbench.job_states import KnownJob

UNKNOWN = ""


def format_time(iso: str | None) -> str:
    """Return an ISO time in this machine's time zone, to the minute."""
    if not iso:
        return UNKNOWN
    moment = datetime.fromisoformat(iso)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return moment.astimezone().strftime("%Y-%m-%d %H:%M")


def format_seconds(seconds: float | None) -> str:
    """Return a duration with its two largest units: `2 h 5 min`."""
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        return UNKNOWN
    whole = round(seconds)
    for size, name, smaller, part in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {name} {rest} {part}" if rest else f"{whole // size} {name}"
    return f"{whole} s"


def format_score(value: float | None) -> str:
    """Return three decimals, or none from 100 on."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"


def format_known_cost(known: KnownJob) -> str:
    """Return what a job has cost: billed, or `about` what was estimated."""
    empty = JobState(known.record.id, "InProgress", StatusDetails(), known.record.created_at)
    cost = Job(known.record, known.state or empty).to_json()["cost"]
    if cost["usd"] is None:
        return "no price known"
    if not cost["usd"]:
        return UNKNOWN
    if not cost["estimated"]:
        return format_usd(cost["usd"])
    return f"{'at most' if cost.get('atMost') else 'about'} {format_usd(cost['usd'])}"


def format_bytes(count: float) -> str:
    """Return a size with a unit: `1.5 MiB`."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
