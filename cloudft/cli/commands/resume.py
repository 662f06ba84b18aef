"""resume: continue a stopped or failed job."""

from __future__ import annotations

import click

from cloudft.cli.command import command
from cloudft.cli.jobs import exit_code_of, follow_job, open_job, print_job
from cloudft.cli.options import Console, aws_options, console_options, job_argument


@command("resume", epilog="\b\nExample:\n  cloudft resume - --wait")
@job_argument
@click.option("--wait", is_flag=True, help="Follow the job until it ends.")
@aws_options
@console_options
def resume_command(reference: str, wait: bool, console: Console) -> int:
    """Continue a stopped or failed job from its last checkpoint."""
    from cloudft.jobs import lifecycle

    record, backend, _ = open_job(reference)
    lifecycle.resume(record, backend)
    job = lifecycle.refresh(record, backend)
    if wait:
        job = follow_job(job, backend, None, console)
        print_job(job, console)
        return exit_code_of(job)
    console.print_result(job.to_json(), f"{record.id}: {job.state.status}")
    return 0
