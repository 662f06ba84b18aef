"""list: show all jobs, newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudft.cli import errors
from cloudft.cli.command import command
from cloudft.cli.jobs import warn_damaged
from cloudft.cli.options import (
    Console,
    aws_location,
    aws_options,
    complete_backend,
    console_options,
)
from cloudft.storage.home import Home

if TYPE_CHECKING:
    from cloudft.errors import DamagedJob
    from cloudft.types import UnavailablePart


@command(
    "list",
    epilog="\b\nExamples:\n  cloudft list --status InProgress\n"
    "  cloudft list --backend bedrock --region us-east-1",
)
@click.option(
    "--backend",
    "backend_name",
    metavar="NAME",
    shell_complete=complete_backend,
    help="Only its jobs; those submitted from other machines are found and kept too.",
)
@click.option(
    "--status",
    type=click.Choice(["InProgress", "Completed", "Failed", "Stopping", "Stopped"]),
    help="Only jobs in this status.",
)
@aws_options
@console_options
def list_command(backend_name: str | None, status: str | None, console: Console) -> int:
    """List the jobs, newest first.

    A job whose account can't be read is listed with the status "unknown" (null in JSON, whatever
    --status says), and the exit code is 4 (refused) or 5 (unreachable) then.
    """
    from cloudft.backends import make_backend
    from cloudft.cli.number_format import format_local_time
    from cloudft.cli.output import format_table, print_unavailable
    from cloudft.errors import DamagedJob
    from cloudft.jobs import listing
    from cloudft.storage.store import Store
    from cloudft.types import Listing

    home = Home.from_environ()
    store = Store(home.jobs)
    damaged: list[DamagedJob] = []
    if backend_name is not None:
        for found in listing.adopt_untracked_jobs(
            make_backend(backend_name, home).bind(aws_location()), store
        ):
            if isinstance(found, DamagedJob):
                damaged.append(found)
            else:
                console.note(f"found {found.id}, submitted from another machine")
    values, rows = [], []
    unread: dict[UnavailablePart, None] = {}
    for job in listing.list_jobs(store, home, backend_name):
        if isinstance(job, DamagedJob):
            damaged.append(job)
            continue
        if isinstance(job, listing.UnreachableJob):
            unread[job.unavailable] = None
            values.append(job.to_json())
            created = format_local_time(job.record.created_at)
            rows.append((job.record.id, job.record.backend, "unknown", "", created))
        elif status is None or job.state.status == status:
            values.append(job.to_json())
            progress = job.state.progress
            steps = f"{progress.step}/{progress.total_steps}" if progress else ""
            created = format_local_time(job.record.created_at)
            record = job.record
            rows.append((record.id, record.backend, job.state.status, steps, created))
    for error in damaged:
        warn_damaged(error)
        values.append({"id": error.job, "status": None, "error": errors.error_json(error)})
    columns = ("JOB", "BACKEND", "STATUS", "STEP", "CREATED")
    none = "no jobs yet: `cloudft init` makes one"
    if damaged or unread:
        none = "no job can be read"
    console.print_result(values, format_table(columns, rows) if rows else none)
    print_unavailable(tuple(unread))
    return Listing((), tuple(unread)).exit_code
