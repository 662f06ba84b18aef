"""infra status: show a stack, its drift and its cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from cloudft.cli.command import command
from cloudft.cli.options import Console, aws_location, aws_options, console_options
from cloudft.cli.stack_options import stack_argument, stack_cost_lines

if TYPE_CHECKING:
    from cloudft.infra.status import Drift, StackReport


@command("status", epilog="\b\nExample:\n  cloudft infra status team --output json")
@stack_argument
@click.option("--drift/--no-drift", default=True, show_default=True, help="Detect drift.")
@aws_options
@console_options
def status_command(name: str, drift: bool, console: Console) -> int:
    """Show a stack: its status, outputs, drift from the template, and cost."""
    from cloudft.aws.client import Aws, AwsLocation
    from cloudft.cli.output import print_unavailable
    from cloudft.infra.costs import sum_known_costs
    from cloudft.infra.status import get_stack_report, stack_to_json
    from cloudft.types import Listing

    report = get_stack_report(Aws(AwsLocation(**aws_location())), name, drift=drift)
    stack = report.stack
    console.print_result(
        {
            "stack": stack_to_json(stack),
            "drift": report.drift,
            "driftUnknown": report.drift_unknown,
            "costs": report.costs,
            "usdPerMonth": None if report.costs is None else sum_known_costs(report.costs),
            "unavailable": report.unavailable,
        },
        _status_text(report),
    )
    print_unavailable(report.unavailable)
    return Listing((), report.unavailable).exit_code


def _status_text(report: StackReport) -> str:
    from cloudft.cli.output import format_table

    stack = report.stack
    reason = f" ({stack.reason})" if stack.reason else ""
    lines = [f"{stack.name}: {stack.status}{reason}"]
    if stack.termination_protection:
        lines.append("termination protection is on")
    if stack.outputs:
        lines += ["", format_table(("OUTPUT", "VALUE"), sorted(stack.outputs.items()))]
    costs = ["costs: unknown"] if report.costs is None else stack_cost_lines(report.costs)
    lines += ["", *_drift_lines(report.drift, report.drift_unknown), "", *costs]
    return "\n".join(lines)


def _drift_lines(drift: Sequence[Drift] | None, why: str | None) -> list[str]:
    if drift is None:
        return [f"drift: unknown ({why})"]
    if not drift:
        return ["drift: none"]
    return [
        f"drift: {one.resource} ({one.type}) is {one.status}: {', '.join(one.properties)}"
        for one in drift
    ]
