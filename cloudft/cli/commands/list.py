"""list: show all jobs, newest first."""

from __future__ import annotations

from collections.abc import Sequence
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
    from cloudft.jobs.lifecycle import Job
    from cloudft.jobs.listing import UnreachableJob
    from cloudft.storage.store import JobRecord, Store

COLUMNS = ("JOB", "BASE MODEL", "BACKEND", "STATUS", "STEP", "LOSS", "SCORE", "CREATED")
IDS_SHOWN = 8
"""Ids in the warning about several jobs that can't be read for one reason."""


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
    help="List only jobs of this backend. Finds and adds those submitted from other machines.",
)
@click.option(
    "--status",
    type=click.Choice(["InProgress", "Completed", "Failed", "Stopping", "Stopped"]),
    help="List only jobs in this status.",
)
@click.option(
    "--all",
    "show_all",
    is_flag=True,
    help="List also the trials of sweeps, and the jobs on parts of the data (of"
    " `cloudft evaluate --learning-curve`).",
)
@aws_options
@console_options
def list_command(
    backend_name: str | None, status: str | None, show_all: bool, console: Console
) -> int:
    """List the jobs, newest first.

    LOSS is the last validation loss, or the training loss of a running job; the reward, where a job
    learns from rewards. SCORE is that of the newest evaluation. A job whose account can't be read
    has the status "unknown" (null in JSON, whatever --status is); the exit code is 4 (refused) or 5
    (unreachable) then.
    """
    from cloudft.cli.output import format_table, print_unavailable
    from cloudft.errors import DamagedJob
    from cloudft.jobs import listing
    from cloudft.storage.store import Store
    from cloudft.types import Listing

    home = Home.from_environ()
    store = Store(home.jobs)
    damaged = _adopt_jobs(backend_name, home, store, console) if backend_name else []
    listed: list[Job | UnreachableJob] = []
    for job in listing.list_jobs(store, home, backend_name):
        if isinstance(job, DamagedJob):
            damaged.append(job)
        elif isinstance(job, listing.UnreachableJob) or status in (None, job.state.status):
            listed.append(job)
    if not show_all:
        listed = _without_trials(_without_part_jobs(listed, console), home, console)
    unreachable = [job for job in listed if isinstance(job, listing.UnreachableJob)]
    unavailable = tuple(dict.fromkeys(job.unavailable for job in unreachable))
    values = [job.to_json() for job in listed]
    values += [
        {"id": error.job, "status": None, "error": errors.error_json(error)} for error in damaged
    ]
    _warn_damaged_jobs(damaged)
    empty = "no job can be read" if damaged else "no jobs yet: `cloudft init` creates one"
    rows = [_row(job) for job in listed]
    console.print_result(values, format_table(COLUMNS, rows) if rows else empty)
    print_unavailable(unavailable)
    return Listing((), unavailable).exit_code


def _adopt_jobs(backend_name: str, home: Home, store: Store, console: Console) -> list[DamagedJob]:
    """Add the backend's jobs of other machines to the store. Return those that can't be read."""
    from cloudft.backends import make_backend
    from cloudft.errors import DamagedJob
    from cloudft.jobs import listing

    damaged = []
    backend = make_backend(backend_name, home).bind(aws_location())
    for job in listing.adopt_untracked_jobs(backend, store):
        if isinstance(job, DamagedJob):
            damaged.append(job)
        else:
            console.note(f"found {job.id}, submitted from another machine")
    return damaged


def _without_part_jobs(
    listed: list[Job | UnreachableJob], console: Console
) -> list[Job | UnreachableJob]:
    """Leave out the jobs on parts of another job's data."""
    from cloudft.storage.side_jobs import part_job_names

    names = part_job_names(job.record for job in listed)
    kept = [job for job in listed if job.record.name not in names]
    if len(kept) < len(listed):
        console.note(f"{len(listed) - len(kept)} jobs of learning curves are hidden: --all")
    return kept


def _without_trials(
    listed: list[Job | UnreachableJob], home: Home, console: Console
) -> list[Job | UnreachableJob]:
    """Leave out the jobs that are trials of a sweep."""
    from cloudft.storage.side_jobs import is_trial

    kept = [job for job in listed if not is_trial(job.record.tags, home)]
    if len(kept) < len(listed):
        console.note(f"{len(listed) - len(kept)} trials of sweeps are hidden: --all")
    return kept


def _row(job: Job | UnreachableJob) -> tuple[str | None, ...]:
    from cloudft.cli.number_format import format_local_time
    from cloudft.jobs.listing import UnreachableJob

    record = job.record
    created = format_local_time(record.created_at)
    start = (record.id, record.base_model, record.backend)
    if isinstance(job, UnreachableJob):
        return (*start, "unknown", "", "", _score_text(record), created)
    progress = job.state.progress
    steps = f"{progress.step}/{progress.total_steps}" if progress and progress.total_steps else ""
    return (*start, job.state.status, steps, _loss_text(job), _score_text(record), created)


def _loss_text(job: Job) -> str:
    """Return the validation loss (or reward) of a finished job, or the last training loss."""
    tuned, progress = job.state.summary.get("tuned"), job.state.progress
    if tuned and tuned.get("validationLoss") is not None:
        return f"{tuned['validationLoss']:.4f}"
    if tuned and tuned.get("reward") is not None:
        return f"reward {tuned['reward']:.3f}"
    if progress and progress.reward is not None:
        return f"reward {progress.reward:.3f}"
    return f"{progress.loss:.4f}" if progress and progress.loss is not None else ""


def _score_text(record: JobRecord) -> str:
    from cloudft.cli.number_format import format_number
    from cloudft.evaluate.metrics.metric_labels import metric_label
    from cloudft.evaluate.results import EVALUATIONS_FOLDER, load_newest_score

    if not (record.folder / EVALUATIONS_FOLDER).is_dir():
        return ""
    score = load_newest_score(record.folder)
    if score is None or score.tuned.get(score.metric) is None:
        return ""
    return f"{metric_label(score.metric)} {format_number(score.tuned[score.metric])}"


def _warn_damaged_jobs(damaged: Sequence[DamagedJob]) -> None:
    """Print one warning for each reason, however many jobs have it."""
    groups: dict[tuple[str, str], list[DamagedJob]] = {}
    for error in damaged:
        job = error.job or ""
        # Messages and remedies name the job: without its id, those of one reason are equal.
        reason, remedy = (text.replace(job, "JOB") if job else text for text in _texts(error))
        groups.setdefault((reason, remedy), []).append(error)
    for (reason, remedy), same in groups.items():
        if len(same) == 1:
            warn_damaged(same[0])
            continue
        ids = ", ".join(error.job or "?" for error in same[:IDS_SHOWN])
        more = f" and {len(same) - IDS_SHOWN} more" if len(same) > IDS_SHOWN else ""
        click.echo(f"warning: {len(same)} jobs can't be listed: {ids}{more}: {reason}", err=True)
        if remedy:
            click.echo(f"  fix: {remedy}", err=True)


def _texts(error: DamagedJob) -> tuple[str, str]:
    return error.message, error.fix or ""
