"""stop: request that a job stops."""

from __future__ import annotations

import click

from cloudft.cli.command import command
from cloudft.cli.jobs import follow_job, open_job
from cloudft.cli.options import Console, aws_options, console_options, job_argument


@command("stop", epilog="\b\nExample:\n  cloudft stop - --wait")
@job_argument
@click.option("--wait", is_flag=True, help="Wait until it has stopped.")
@aws_options
@console_options
def stop_command(reference: str, wait: bool, console: Console) -> int:
    """Stop a job. It saves a checkpoint, from which `cloudft resume` continues."""
    from cloudft.jobs import lifecycle

    record, backend, _ = open_job(reference)
    lifecycle.stop(record, backend)
    job = lifecycle.refresh(record, backend)
    if wait:
        job = follow_job(job, backend, None, console)
    console.print_result(job.to_json(), f"{record.id}: {job.state.status}")
    return 0
