"""label status: what is labeled, how well people agree, what a label costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from cloudft.cli.command import command
from cloudft.cli.options import Console, console_options
from cloudft.storage.home import Home

if TYPE_CHECKING:
    from cloudft.labeling.outlook import Outlook
    from cloudft.labeling.summary import ProjectSummary


@command("status", epilog="\b\nExample:\n  cloudft label status tickets")
@click.argument("name")
@console_options
def status_command(name: str, console: Console) -> int:
    """Show what is labeled, the agreement, what a label costs, and what more are worth."""
    from cloudft.labeling.outlook import estimate_outlook
    from cloudft.labeling.project import open_project
    from cloudft.labeling.summary import summarize_project

    home = Home.from_environ()
    project = open_project(home.labels, name)
    summary = summarize_project(project)
    outlook = estimate_outlook(project, home, summary["cost"]["medianSeconds"])
    console.print_result({**summary, "outlook": outlook}, "\n".join(_lines(summary, outlook)))
    return 0


def _lines(summary: ProjectSummary, outlook: Outlook) -> Iterator[str]:
    yield (
        f"{summary['project']}: {summary['decided']} of {summary['records']} records decided,"
        f" {summary['open']} open to disagreement"
    )
    for name, one in summary["people"].items():
        yield f"  {name}: {one['labeled']} labeled, {one['rejected']} rejected"
    if summary["agreement"] is not None:
        yield (
            f"agreement (Krippendorff's alpha) over {summary['sharedRecords']} records:"
            f" {summary['agreement']:.2f}"
        )
    shares = {
        "suggestions": summary["suggestionsRight"],
        "answers in the file": summary["answersRight"],
    }
    for title, share in shares.items():
        if share["share"] is not None:
            yield (
                f"{title} are right in {share['share']:.0%} of {share['records']} records drawn at"
                f" random (95 % interval {share['low']:.0%} to {share['high']:.0%})"
            )
    median = summary["cost"]["medianSeconds"]
    if median is not None:
        hours = median * summary["remaining"] / 3600
        yield f"a label takes {median:.1f} s (median); the other records about {hours:.1f} h"
    yield from _outlook_lines(outlook)


def _outlook_lines(outlook: Outlook) -> Iterator[str]:
    if not outlook["known"]:
        measure = f"; measure it: {outlook['command']}" if outlook["command"] else ""
        yield f"what more labels are worth is not known: {outlook['reason']}{measure}"
    for step in outlook["steps"]:
        time = "" if step["hours"] is None else f" (about {step['hours']:.1f} h)"
        yield (
            f"{step['more']} more labels{time}: held-out loss {step['loss']:.3f}"
            f" ({step['low']:.3f} to {step['high']:.3f}), {-step['fall']:+.1%}"
        )
