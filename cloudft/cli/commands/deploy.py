"""deploy: serve a tuned model on Bedrock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudft.cli.command import command
from cloudft.cli.jobs import open_job
from cloudft.cli.number_format import format_usd
from cloudft.cli.options import Console, aws_options, console_options, job_argument
from cloudft.cli.param_types import HOURS
from cloudft.cli.serving import require_serving

if TYPE_CHECKING:
    from cloudft.backends.resources import CloudResource, ServingPlan


@command(
    "deploy",
    epilog="\b\nExamples:\n  cloudft deploy ticket-router --yes\n"
    "  cloudft deploy - --provisioned --units 1 --ttl 4 --dry-run",
)
@job_argument
@click.option("--provisioned", is_flag=True, help="By the hour, even where on demand is possible.")
@click.option(
    "--units", type=click.IntRange(1, 1000), default=1, show_default=True, help="Model units."
)
@click.option(
    "--ttl",
    type=HOURS,
    metavar="HOURS",
    help="After this `ps` warns of it and `gc` removes it; nothing removes it by itself.",
)
@click.option("--dry-run", is_flag=True, help="Print the call and its cost, and make nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@aws_options
@console_options
def deploy_command(
    reference: str,
    provisioned: bool,
    units: int,
    ttl: float | None,
    dry_run: bool,
    yes: bool,
    console: Console,
) -> int:
    """Serve a job's tuned model.

    On demand where the model allows it: idle, that costs nothing. Else by provisioned throughput,
    which costs by the hour until `cloudft undeploy`, asked or not. What serves it already stays;
    --ttl gives it that many hours from now on.
    """
    from cloudft.cli.number_format import format_local_time
    from cloudft.cli.output import json_text

    record, backend, _ = open_job(reference)
    server = require_serving(record, backend)
    job_id = record.backend_job_id or record.id
    plan = server.plan_serving(job_id, provisioned=provisioned, units=units, hours=ttl)
    said = _plan_text(plan)
    if dry_run:
        call = plan.renewal if plan.existing is not None else plan.call
        console.print_result(plan, f"{json_text(call)}\n{said}" if call else said)
        return 0
    if not yes and (plan.existing is None or plan.renewal is not None):
        question = "make it?" if plan.existing is None else "renew it?"
        click.confirm(f"{said}\n{question}", abort=True, err=True)
    making = "making it; Ctrl-C leaves it to be made ..."
    console.note(f"{said}\n{making}" if plan.existing is None else said)
    thing = server.deploy(plan)
    until = f"  expires {format_local_time(thing.expires_at)}" if thing.expires_at else ""
    console.print_result(thing, f"{thing.id}  {thing.status}{until}")
    return 0


def _plan_text(plan: ServingPlan) -> str:
    hour, month = plan.usd["perHour"], plan.usd["perMonth"]
    rest = ", and tokens by use" if plan.kind == "on-demand" else " until it is removed"
    costs = (
        f"{plan.kind} {plan.name}: {format_usd(hour)} an hour, {format_usd(month)} a month{rest}"
    )
    return costs if plan.existing is None else f"{costs}\n{_expiry_text(plan, plan.existing)}"


def _expiry_text(plan: ServingPlan, stands: CloudResource) -> str:
    """What becomes of the time to live of what serves the model already."""
    from cloudft.cli.number_format import format_local_time

    now = (
        f"expires {format_local_time(stands.expires_at)}" if stands.expires_at else "never expires"
    )
    if plan.renewal is None:
        return f"it serves the model already and {now}; --ttl HOURS changes that"
    return (
        f"it serves the model already and {now}; renewed until {format_local_time(plan.expires_at)}"
    )
