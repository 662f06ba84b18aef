"""watch: follow a job until it ends."""

from __future__ import annotations

import click

from cloudft.cli.command import command
from cloudft.cli.jobs import exit_code_of, follow_job, open_job, print_job
from cloudft.cli.options import Console, aws_options, console_options, job_argument
from cloudft.cli.param_types import SECONDS


@command("watch", epilog="\b\nExample:\n  cloudft watch -")
@job_argument
@click.option(
    "--timeout", type=SECONDS, metavar="SECONDS", help="Exit with code 124 after this time."
)
@aws_options
@console_options
def watch_command(reference: str, timeout: float | None, console: Console) -> int:
    """Follow a job until it ends. Ctrl-C stops watching, not the job.

    Exit code 0 when it Completed, 1 when it Failed or was Stopped.
    """
    from cloudft.jobs import lifecycle

    record, backend, _ = open_job(reference)
    job = follow_job(lifecycle.refresh(record, backend), backend, timeout, console)
    print_job(job, console)
    return exit_code_of(job)
