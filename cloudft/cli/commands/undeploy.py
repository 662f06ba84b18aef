"""undeploy: remove what serves a tuned model."""

from __future__ import annotations

import click

from cloudft.cli.command import command
from cloudft.cli.jobs import open_job
from cloudft.cli.options import Console, aws_options, console_options, job_argument, yes_option
from cloudft.cli.serving import require_serving


@command("undeploy", epilog="\b\nExample:\n  cloudft undeploy ticket-router --yes")
@job_argument
@yes_option
@aws_options
@console_options
def undeploy_command(reference: str, yes: bool, console: Console) -> int:
    """Remove what serves a job's model. The model stays, and its storage is still billed.

    A deployment that cloudft did not create stays, with a warning; if there is no other, the
    command fails. Provisioned throughput with a commitment can't be removed before its term ends.
    """
    from cloudft.backends.resources import committed_error

    record, backend, _ = open_job(reference)
    server = require_serving(record, backend)
    job_id = record.backend_job_id or record.id
    deployments = server.list_servings(job_id)
    removable = [resource for resource in deployments if resource.job is not None]
    for resource in deployments if removable else ():
        if resource.job is None:
            what = (
                f"warning: {resource.kind} {resource.name} serves {record.id} and is kept: cloudft"
            )
            fix = f"remove it with the tool that created it ({resource.id})."
            click.echo(f"{what} did not create it\n  fix: {fix}", err=True)
    for resource in removable:
        if resource.is_committed():
            raise committed_error(resource)
    if removable and not yes:
        names = ", ".join(resource.name for resource in removable)
        click.confirm(f"remove {names}?", abort=True, err=True)
    removed = server.undeploy(job_id) if deployments else []
    text = "\n".join(f"removed {resource.kind} {resource.name}" for resource in removed)
    console.print_result(removed, text or f"nothing serves {record.id}")
    return 0
