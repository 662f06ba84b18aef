"""ps: list the resources in the account, and their cost."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from cloudft.cli.command import command
from cloudft.cli.options import Console, aws_location, aws_options, cloud_option, console_options
from cloudft.cli.output import print_unavailable
from cloudft.storage.home import Home


@command("ps", epilog="\b\nExample:\n  cloudft ps --cost --region us-east-1")
@cloud_option
@click.option("--cost", is_flag=True, help="What each costs an hour and a month, and the sum.")
@aws_options
@console_options
def ps_command(backend_name: str | None, cost: bool, console: Console) -> int:
    """List what is there in the account and Region: servings, models, machines, staged data.

    Everything is listed, whoever made it; the column JOB is empty where it was not cloudft. What
    can't be read is said, and the exit code is 4 (refused) or 5 (unreachable) then.
    """
    from cloudft.account import cleanup
    from cloudft.cli.number_format import format_local_time, format_usd
    from cloudft.cli.output import format_table

    listing = cleanup.list_account(backend_name, Home.from_environ(), aws_location())
    things = listing.items
    rows = []
    for thing in things:
        job = thing.job if thing.job_known else "unknown"
        row = [thing.kind, thing.name, thing.status, job, format_local_time(thing.created_at)]
        expires = (
            format_local_time(thing.expires_at) if _is_time(thing.expires_at) else thing.expires_at
        )
        row.append("EXPIRED" if cleanup.is_expired(thing) else expires)
        if cost:
            row += [format_usd(thing.usd["perHour"]), format_usd(thing.usd["perMonth"])]
        rows.append(row)
    columns = ["KIND", "NAME", "STATUS", "JOB", "CREATED", "EXPIRES"]
    text = format_table(columns + (["AN HOUR", "A MONTH"] if cost else []), rows)
    if not things:
        text = "no resources found" + (" in what could be read" if listing.unavailable else "")
    result: dict[str, Any] = {"things": things, "unavailable": listing.unavailable}
    if cost:
        unknown = sum(thing.usd["perMonth"] is None for thing in things)
        total = cleanup.total_usd(things)
        at_least = bool(listing.unavailable or unknown)
        result["usd"] = {**total, "atLeast": at_least}
        bound = "at least " if at_least else ""
        text += f"\n{bound}{format_usd(total['perHour'])} an hour"
        text += f", {bound}{format_usd(total['perMonth'])} a month"
        text += f"; {unknown} of unknown price" if unknown else ""
        bases = dict.fromkeys((thing.kind, thing.basis) for thing in things if thing.basis)
        text += "".join(f"\n  {kind}: {basis}" for kind, basis in bases)
    console.print_result(result, text)
    print_unavailable(listing.unavailable)
    return listing.exit_code


def _is_time(text: str | None) -> bool:
    """Return whether a tag, which anybody may have written, is a time."""
    try:
        return datetime.fromisoformat(text or "") is not None
    except ValueError:
        return False
