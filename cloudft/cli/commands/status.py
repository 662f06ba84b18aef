"""status: show one job."""

from __future__ import annotations

from cloudft.cli.command import command
from cloudft.cli.jobs import open_job, print_job
from cloudft.cli.options import Console, aws_options, console_options, job_argument


@command("status", epilog="\b\nExample:\n  cloudft status - --output json")
@job_argument
@aws_options
@console_options
def status_command(reference: str, console: Console) -> int:
    """Show one job.

    JOB is an id, a unique prefix of one, a name (its newest job), or - for the last job.
    """
    from cloudft.jobs import lifecycle

    record, backend, _ = open_job(reference)
    print_job(lifecycle.refresh(record, backend), console)
    return 0
