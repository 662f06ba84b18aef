"""ps: list the resources in the AWS account, and their cost."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from cloudft.cli.command import command
from cloudft.cli.options import Console, aws_location, aws_options, cloud_option, console_options
from cloudft.cli.output import print_unavailable
from cloudft.storage.home import Home

if TYPE_CHECKING:
    from cloudft.backends.resources import CloudResource


@command("ps", epilog="\b\nExample:\n  cloudft ps --cost --region us-east-1")
@cloud_option
@click.option(
    "--cost", is_flag=True, help="Show the cost per hour and per month of each, and the sum."
)
@aws_options
@console_options
def ps_command(backend_name: str | None, cost: bool, console: Console) -> int:
    """List the resources in the account and Region: deployments, models, instances, staged data.

    All are listed, whatever created them; the column JOB is empty for those not of cloudft. A
    deployment that was updated has the job whose model it serves now. If some can't be read, a
    warning names them and the exit code is 4 (refused) or 5 (unreachable).
    """
    from cloudft.account import cleanup
    from cloudft.cli.number_format import format_local_time, format_usd
    from cloudft.cli.output import format_table

    listing = cleanup.list_account(backend_name, Home.from_environ(), aws_location())
    resources = listing.items
    rows = []
    # Commitments are rare: others need no column for them.
    has_commitments = any(resource.commitment for resource in resources)
    for resource in resources:
        job = resource.job if resource.job_known else "unknown"
        row = [
            resource.kind,
            resource.name,
            resource.status,
            job,
            format_local_time(resource.created_at),
        ]
        expires = (
            format_local_time(resource.expires_at)
            if _is_time(resource.expires_at)
            else resource.expires_at
        )
        row.append("EXPIRED" if cleanup.is_expired(resource) else expires)
        if has_commitments:
            row.append(_commitment_text(resource))
        if cost:
            row += [format_usd(resource.usd["perHour"]), format_usd(resource.usd["perMonth"])]
        rows.append(row)
    columns = ["KIND", "NAME", "STATUS", "JOB", "CREATED", "EXPIRES"]
    columns += ["COMMITTED UNTIL"] if has_commitments else []
    text = format_table(columns + (["AN HOUR", "A MONTH"] if cost else []), rows)
    if not resources:
        text = "no resources found" + (" in what could be read" if listing.unavailable else "")
    result: dict[str, Any] = {"things": resources, "unavailable": listing.unavailable}
    if cost:
        unknown = sum(resource.usd["perMonth"] is None for resource in resources)
        total = cleanup.total_usd(resources)
        at_least = bool(listing.unavailable or unknown)
        result["usd"] = {**total, "atLeast": at_least}
        bound = "at least " if at_least else ""
        text += f"\n{bound}{format_usd(total['perHour'])} an hour"
        text += f", {bound}{format_usd(total['perMonth'])} a month"
        text += f"; {unknown} of unknown price" if unknown else ""
        bases = dict.fromkeys(
            (resource.kind, resource.basis) for resource in resources if resource.basis
        )
        text += "".join(f"\n  {kind}: {basis}" for kind, basis in bases)
    console.print_result(result, text)
    print_unavailable(listing.unavailable)
    return listing.exit_code


def _commitment_text(resource: CloudResource) -> str | None:
    """Return the end of a commitment and its duration."""
    from cloudft.cli.number_format import format_local_time

    if resource.commitment is None:
        return None
    return f"{format_local_time(resource.committed_until)} ({resource.commitment})"


def _is_time(text: str | None) -> bool:
    """Return whether a tag, which anybody may have written, is a time."""
    try:
        return datetime.fromisoformat(text or "") is not None
    except ValueError:
        return False
