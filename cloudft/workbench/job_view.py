"""What the page of one job shows of it, as plain values for the templates."""

from __future__ import annotations

from typing import Any

from cloudft.workbench.job_states import KnownJob


def view_job(known: KnownJob) -> dict[str, Any]:
    """Return the values of the page's parts."""
    return {"known": known, "record": known.record}
