"""logs: print a job's log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from cloudft.cli.command import command
from cloudft.cli.jobs import open_job
from cloudft.cli.options import Console, aws_options, console_options, job_argument

if TYPE_CHECKING:
    from cloudft.backends.base import Backend
    from cloudft.storage.store import JobRecord
    from cloudft.types import LogLine


@command("logs", epilog="\b\nExample:\n  cloudft logs - --follow")
@job_argument
@click.option("-f", "--follow", is_flag=True, help="Follow the log until the job ends.")
@aws_options
@console_options
def logs_command(reference: str, follow: bool, console: Console) -> int:
    """Print a job's log. --output json prints one object per line."""
    from cloudft.cli.output import json_line

    record, backend, _ = open_job(reference)
    for line in _read_log(record, backend, follow):
        if console.is_json:
            click.echo(json_line(line))
        else:
            click.echo(line.text)
    return 0


def _read_log(record: JobRecord, backend: Backend, follow: bool) -> Iterator[LogLine]:
    from cloudft.jobs import lifecycle

    cursor = None
    while True:
        ended = lifecycle.refresh(record, backend).state.has_ended
        for line in backend.logs(record.backend_job_id or record.id, cursor):
            cursor = line.cursor
            yield line
        if ended or not follow:
            return
        time.sleep(backend.poll_seconds)
