"""undeploy: remove what serves a tuned model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudft.cli.command import command
from cloudft.cli.jobs import open_job
from cloudft.cli.options import Console, aws_options, console_options, job_argument
from cloudft.cli.serving import require_serving

if TYPE_CHECKING:
    from cloudft.backends.resources import CloudResource


@command("undeploy", epilog="\b\nExample:\n  cloudft undeploy ticket-router --yes")
@job_argument
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@aws_options
@console_options
def undeploy_command(reference: str, yes: bool, console: Console) -> int:
    """Remove what serves a job's model. The model stays, and its storage goes on to cost.

    What cloudft did not make stays, too, with a warning; where nothing else serves it, that is an
    error.
    """
    record, backend, _ = open_job(reference)
    server = require_serving(record, backend)
    job_id = record.backend_job_id or record.id
    serving_it: list[CloudResource] = server.list_servings(job_id)
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
