"""Render the page of a comparison: leaderboard, differences, and the records that changed."""

from __future__ import annotations

from cloudft.evaluate.compare import ComparisonReport
from cloudft.evaluate.report.changed_records import make_groups, share_prompts
from cloudft.evaluate.report.pages import render_template

MAX_CHANGED = 50
"""Records that changed which are shown, of each kind and model."""


def render_compare_page(found: ComparisonReport) -> str:
    """Return the page as HTML."""
    changed = [[*one["broken"], *one["fixed"]] for one in found["comparisons"]]
    shared = share_prompts([record for records in changed for record in records])
    groups = [
        make_groups(records, shared, MAX_CHANGED, before=one["against"], after=one["name"])
        for one, records in zip(found["comparisons"], changed, strict=True)
    ]
    return render_template("compare.html", {**found, "groups": groups, "shared": shared})
