"""deploy: serve a tuned model on Bedrock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudft.cli.command import command
from cloudft.cli.jobs import open_job
from cloudft.cli.number_format import format_usd
from cloudft.cli.options import Console, aws_options, console_options, job_argument, yes_option
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
@click.option(
    "--provisioned",
    is_flag=True,
    help="Use provisioned throughput, billed by the hour, even if on demand is possible.",
)
@click.option(
    "--units",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="Model units of provisioned throughput.",
)
@click.option(
    "--ttl",
    type=HOURS,
    metavar="HOURS",
    help="After this time `ps` marks it as expired and `gc` removes it; it never ends by itself.",
)
@click.option("--dry-run", is_flag=True, help="Print the API call and its cost; create nothing.")
@yes_option
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

    An on-demand deployment costs nothing while idle, and is used if the model allows it. Otherwise
    provisioned throughput is used, which is billed by the hour until `cloudft undeploy`, used or
    not. An existing deployment is kept; --ttl renews it for that many hours from now.
    """
    from cloudft.cli.number_format import format_local_time
    from cloudft.cli.output import json_text
    from cloudft.types import to_json

    record, backend, _ = open_job(reference)
    server = require_serving(record, backend)
    job_id = record.backend_job_id or record.id
    plan = server.plan_serving(job_id, provisioned=provisioned, units=units, hours=ttl)
    summary = _plan_text(plan)
    if dry_run:
        call = plan.renewal if plan.existing is not None else plan.call
        # JSON keeps the key `stands`, which scripts read, for what serves the model already.
        content = to_json(plan)
        content["stands"] = content.pop("existing")
        console.print_result(content, f"{json_text(call)}\n{summary}" if call else summary)
        return 0
    if not yes and (plan.existing is None or plan.renewal is not None):
        question = "create it?" if plan.existing is None else "renew it?"
        click.confirm(f"{summary}\n{question}", abort=True, err=True)
    creating = "creating it; Ctrl-C detaches, and the creation continues ..."
    console.note(f"{summary}\n{creating}" if plan.existing is None else summary)
    resource = server.deploy(plan)
    until = f"  expires {format_local_time(resource.expires_at)}" if resource.expires_at else ""
    console.print_result(resource, f"{resource.id}  {resource.status}{until}")
    return 0


def _plan_text(plan: ServingPlan) -> str:
    hour, month = plan.usd["perHour"], plan.usd["perMonth"]
    rest = ", and tokens by use" if plan.kind == "on-demand" else " until it is removed"
    costs = (
        f"{plan.kind} {plan.name}: {format_usd(hour)} per hour, {format_usd(month)} per month{rest}"
    )
    return costs if plan.existing is None else f"{costs}\n{_expiry_text(plan, plan.existing)}"


def _expiry_text(plan: ServingPlan, existing: CloudResource) -> str:
    """Return when the existing deployment expires, and whether this command changes that."""
    from cloudft.cli.number_format import format_local_time

    expires_at = existing.expires_at
    now = f"expires {format_local_time(expires_at)}" if expires_at else "never expires"
    if plan.renewal is None:
        return f"it exists already and {now}; --ttl HOURS changes that"
    return f"it exists already and {now}; renewed until {format_local_time(plan.expires_at)}"
