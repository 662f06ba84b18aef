"""deploy and undeploy: what serves a tuned model, and what that costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cloudft.cli.jobs import open_job
from cloudft.cli.options import Console, console_options, job_argument
from cloudft.cli.param_types import HOURS
from cloudft.errors import UsageError

if TYPE_CHECKING:
    from cloudft.backends.resources import CloudResource, ServingPlan
    from cloudft.storage.store import JobRecord


def require_serving(record: JobRecord, backend: Any) -> Any:
    """The backend as one that serves. Raises UsageError for one that does not."""
    from cloudft.backends.capabilities import SupportsExport, SupportsServing

    if not isinstance(backend, SupportsServing):
        fix = f"`cloudft generate {record.id}` asks its model"
        if isinstance(backend, SupportsExport):
            fix += f"; `cloudft import {record.id}` has Bedrock serve it"
        raise UsageError(f"a job on {record.backend} needs nothing that serves it", fix=f"{fix}.")
    return backend


def format_usd(usd: float | None) -> str:
    """An amount; what is not known is said to be unknown."""
    from cloudft.catalogue import cost

    return "unknown" if usd is None else cost.format_usd(usd)


@click.command(
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
    from cloudft.cli.output import format_local_time, json_text

    record, backend, _ = open_job(reference)
    server = require_serving(record, backend)
    job_id = record.backend_job_id or record.id
    plan = server.plan_serving(job_id, provisioned=provisioned, units=units, hours=ttl)
    said = _plan_text(plan)
    if dry_run:
        call = plan.renewal if plan.stands is not None else plan.call
        console.print_result(plan, f"{json_text(call)}\n{said}" if call else said)
        return 0
    if not yes and (plan.stands is None or plan.renewal is not None):
        question = "make it?" if plan.stands is None else "renew it?"
        click.confirm(f"{said}\n{question}", abort=True, err=True)
    making = "making it; Ctrl-C leaves it to be made ..."
    console.note(f"{said}\n{making}" if plan.stands is None else said)
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
    from cloudft.cli.output import format_local_time

    now = (
        f"expires {format_local_time(stands.expires_at)}" if stands.expires_at else "never expires"
    )
    if plan.renewal is None:
        return f"it serves the model already and {now}; --ttl HOURS changes that"
    return (
        f"it serves the model already and {now}; renewed until {format_local_time(plan.expires_at)}"
    )


@click.command("undeploy", epilog="\b\nExample:\n  cloudft undeploy ticket-router --yes")
@job_argument
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@console_options
def undeploy_command(reference: str, yes: bool, console: Console) -> int:
    """Remove what serves a job's model. The model stays, and its storage goes on to cost.

    What cloudft did not make stays, too, with a warning; where nothing else serves it, that is an
    error.
    """
    record, backend, _ = open_job(reference)
    server = require_serving(record, backend)
    job_id = record.backend_job_id or record.id
    serving_it: list[CloudResource] = server.servings(job_id)
    there = [thing for thing in serving_it if thing.job is not None]
    for thing in serving_it if there else ():
        if thing.job is None:
            what = f"warning: {thing.kind} {thing.name} serves {record.id}, and stays: cloudft"
            fix = f"remove it where it was made ({thing.id})."
            click.echo(f"{what} did not make it\n  fix: {fix}", err=True)
    if there and not yes:
        names = ", ".join(thing.name for thing in there)
        click.confirm(f"remove {names}?", abort=True, err=True)
    removed: list[CloudResource] = server.undeploy(job_id) if serving_it else []
    text = "\n".join(f"removed {thing.kind} {thing.name}" for thing in removed)
    console.print_result(removed, text or f"nothing serves {record.id}")
    return 0
