"""Render one self-contained page about a job's data: lengths, labels, duplicates, private data."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from cloudft.evaluate.report.histogram_svg import draw_histogram
from cloudft.evaluate.report.pages import render_template

MAX_LABELS = 30
"""Labels that are shown with a bar, the most common; the others are folded."""

SetStats = Mapping[str, Any]
"""The JSON values of `DatasetStats` (data/analysis/stats.py)."""


def render_data_page(
    heading: str, stats: Mapping[str, SetStats], private: Mapping[str, Mapping[str, int]]
) -> str:
    """Return the page as HTML. `private` counts private data by role and kind."""
    sections = [
        _section(role, value, private[role], number)
        for number, (role, value) in enumerate(stats.items())
    ]
    return render_template("data.html", {"heading": heading, "sections": sections})


def _section(
    role: str, value: SetStats, private: Mapping[str, int], number: int
) -> dict[str, object]:
    """Return what the template shows of one role; `number` is its position on the page."""
    from markupsafe import Markup

    tokens, labels = value["tokens"], value["labels"] or {}
    histogram = tokens.get("histogram")
    return {
        "role": role,
        "stats": value,
        "private": private,
        # Safe without escaping: the drawing is made here, from numbers only.
        "histogram": histogram
        and Markup(
            draw_histogram(histogram["edges"], histogram["records"], tokens["limit"], number)
        ),
        "most": max(labels.values(), default=0),
        "labels": list(islice(labels.items(), MAX_LABELS)),
        "more_labels": list(islice(labels.items(), MAX_LABELS, None)),
    }
