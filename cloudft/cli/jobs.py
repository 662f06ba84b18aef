"""list, status, watch, logs, stop, resume, delete: the life of a job."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudft.cli import errors
from cloudft.cli.options import (
    Console,
    aws_location,
    complete_backend,
    console_options,
    job_argument,
)
from cloudft.cli.param_types import SECONDS
from cloudft.storage.home import Home

if TYPE_CHECKING:
    from cloudft.backends.base import Backend
    from cloudft.errors import CloudftError, DamagedJob
    from cloudft.jobs.lifecycle import Job
    from cloudft.storage.store import JobRecord, Store
    from cloudft.types import LogLine, UnavailablePart


def open_job(reference: str) -> tuple[JobRecord, Backend, Store]:
    """The record that `reference` means, its backend, and the store."""
    from cloudft.jobs import lifecycle
    from cloudft.storage.store import Store

    home = Home.from_environ()
    store = Store(home.jobs)
    record = store.find_by_reference(reference)
    return record, lifecycle.backend_for(record, home), store


def print_job(job: Job, console: Console) -> None:
    """Print one job."""
    from cloudft.cli.output import job_page

    value = job.to_json()
    console.print_result(value, job_page(value))


def exit_code_of(job: Job) -> int:
    """0 for a Completed job, 1 for one that Failed or was Stopped."""
    return 0 if job.state.status == "Completed" else 1


def follow_job(job: Job, backend: Backend, timeout: float | None, console: Console) -> Job:
    """Follow a job to its end with progress on stderr; Ctrl-C leaves the job running."""
    from cloudft.cli import job_progress, loss_plot
    from cloudft.jobs import lifecycle
    from cloudft.jobs import wait as waiting

    def say(error: CloudftError) -> None:
        console.note(f"{error.message}\n  {error.fix}\n  watching goes on after it ...")

    look = waiting.tolerating_outages(
        lambda: lifecycle.refresh(job.record, backend).state, say, job.state
    )
    states = waiting.poll_until_ended(
        look, timeout=timeout, poll=backend.poll_seconds, max_poll=backend.longest_poll_seconds
    )
    try:
        state = job_progress.show_progress(states, console)
    except KeyboardInterrupt:
        console.note(f"{job.record.id} goes on; `cloudft watch {job.record.id}` follows it again.")
        raise
    if state.failure_message:
        console.note(state.failure_message)
    if state.artifacts:
        points = list(backend.metrics(job.record.backend_job_id or job.record.id))
        drawn = loss_plot.save_loss_plot(points, job.record.id, Path(state.artifacts).parent)
        console.debug(f"wrote {drawn}" if drawn else "the curves were not drawn")
    return lifecycle.Job(job.record, state)


def warn_damaged(error: DamagedJob) -> None:
    """Say in one warning which job can't be read, and what to do."""
    click.echo(
        f"warning: {error.message}{errors.location_suffix(error)}\n  fix: {error.fix}", err=True
    )


@click.command(
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
@console_options
def list_command(backend_name: str | None, status: str | None, console: Console) -> int:
    """List the jobs, newest first.

    A job whose account can't be read is listed with the status "unknown" (null in JSON, whatever
    --status says), and the exit code is 4 (refused) or 5 (unreachable) then.
    """
    from cloudft.backends import make_backend
    from cloudft.cli.output import format_local_time, format_table, print_unavailable
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


@click.command("status", epilog="\b\nExample:\n  cloudft status - --output json")
@job_argument
@console_options
def status_command(reference: str, console: Console) -> int:
    """Show one job: JOB is an id, a unique prefix, a name, or - for the last one."""
    from cloudft.jobs import lifecycle

    record, backend, _ = open_job(reference)
    print_job(lifecycle.refresh(record, backend), console)
    return 0


@click.command("watch", epilog="\b\nExample:\n  cloudft watch -")
@job_argument
@click.option("--timeout", type=SECONDS, metavar="SECONDS", help="Exit with 124 after this long.")
@console_options
def watch_command(reference: str, timeout: float | None, console: Console) -> int:
    """Follow a job until it ends. Ctrl-C ends the watching, not the job.

    Exit code 0 when it Completed, 1 when it Failed or was Stopped.
    """
    from cloudft.jobs import lifecycle

    record, backend, _ = open_job(reference)
    job = follow_job(lifecycle.refresh(record, backend), backend, timeout, console)
    print_job(job, console)
    return exit_code_of(job)


@click.command("logs", epilog="\b\nExample:\n  cloudft logs - --follow")
@job_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends.")
@console_options
def logs_command(reference: str, follow: bool, console: Console) -> int:
    """Print a job's log. With --output json, one object a line."""
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


@click.command("stop", epilog="\b\nExample:\n  cloudft stop - --wait")
@job_argument
@click.option("--wait", is_flag=True, help="Wait until it has stopped.")
@console_options
def stop_command(reference: str, wait: bool, console: Console) -> int:
    """Ask a job to stop. It leaves a checkpoint, and `resume` goes on from it."""
    from cloudft.jobs import lifecycle

    record, backend, _ = open_job(reference)
    lifecycle.stop(record, backend)
    job = lifecycle.refresh(record, backend)
    if wait:
        job = follow_job(job, backend, None, console)
    console.print_result(job.to_json(), f"{record.id}: {job.state.status}")
    return 0


@click.command("resume", epilog="\b\nExample:\n  cloudft resume - --wait")
@job_argument
@click.option("--wait", is_flag=True, help="Follow the job until it ends.")
@console_options
def resume_command(reference: str, wait: bool, console: Console) -> int:
    """Go on with a stopped or failed job, from its last checkpoint."""
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


@click.command("delete", epilog="\b\nExample:\n  cloudft delete ticket-router-1f3a --yes")
@job_argument
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--force",
    is_flag=True,
    help="Also a job that its account does not know (any more), or a damaged one that may run.",
)
@console_options
def delete_command(reference: str, yes: bool, force: bool, console: Console) -> int:
    """Remove a job and what it left on this machine: model, curves, log, checkpoints."""
    from cloudft.errors import DamagedJob
    from cloudft.jobs import lifecycle
    from cloudft.storage.store import Store

    def agreed(job_id: str) -> None:
        if not yes:
            click.confirm(f"delete {job_id} and its model?", abort=True, err=True)

    try:
        record, backend, store = open_job(reference)
        agreed(record.id)
        job_id = record.id
        lifecycle.delete(record, backend, store, force=force)
    except DamagedJob as error:
        if error.job is None:
            raise
        job_id = error.job
        warn_damaged(error)
        agreed(job_id)
        lifecycle.delete_damaged(error, Store(Home.from_environ().jobs), force=force)
    console.print_result({"id": job_id, "deleted": True}, f"{job_id}: deleted")
    return 0
