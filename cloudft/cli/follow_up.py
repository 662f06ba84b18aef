"""Submit and follow a job that makes a model out of another one: a copy, an import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloudft.cli.options import Console
from cloudft.storage.home import Home

if TYPE_CHECKING:
    from cloudft.backends.base import StagedJob
    from cloudft.jobs.lifecycle import Job
    from cloudft.types import Estimate


@dataclass(frozen=True)
class FollowUpOptions:
    """Options of the command line: print the plan alone, follow the job, start another one."""

    dry_run: bool = False
    wait: bool = False
    timeout: float | None = None
    force_new: bool = False


def submit_and_report(
    staged: StagedJob, backend_name: str, options: FollowUpOptions, console: Console
) -> int:
    """Submit a job once, follow it if that is an option, and print it; return the exit code."""
    from cloudft.backends import make_backend
    from cloudft.cli.jobs import exit_code_of, follow_job, print_job
    from cloudft.cli.output import json_text
    from cloudft.cli.progress import run_observer
    from cloudft.jobs import lifecycle
    from cloudft.storage.store import Store

    home = Home.from_environ()
    backend = make_backend(backend_name, home).for_job(staged.job)
    if options.dry_run:
        plan = backend.plan(staged)
        console.note(_storage_text(plan.estimate))
        console.print_result(plan, json_text(plan))
        return 0

    def print_estimate(estimate: Estimate) -> None:
        console.note(_storage_text(estimate))

    with run_observer(console, on_estimate=print_estimate) as observer:
        job = lifecycle.submit(
            staged, backend, Store(home.jobs), force_new=options.force_new, observer=observer
        )
    if options.wait:
        job = follow_job(job, backend, options.timeout, console)
        print_job(job, console)
        return exit_code_of(job)
    print_started(job, "it is made already; --force-new makes another one.", console)
    return 0


def print_started(job: Job, completed: str, console: Console) -> None:
    """Print a job that is not followed; `completed` is said of one that has ended before."""
    from cloudft.cli.commands.submit import warn_not_described

    warn_not_described(job)
    is_completed = job.state.status == "Completed"
    note = completed if is_completed else f"`cloudft watch {job.record.id}` follows it."
    console.note(f"{job.state.status}: {note}")
    console.print_result(job.to_json(), job.record.id)


def _storage_text(estimate: Estimate) -> str:
    """Return what keeping the model costs, with the source."""
    from cloudft.cli.number_format import format_usd

    month = estimate.usd["storagePerMonth"]
    if month is None:
        return f"storage until it is removed: {estimate.price_source}"
    source = ", ".join(part for part in (estimate.price_source, estimate.price_date) if part)
    return f"storage: {format_usd(month)} per month until it is removed ({source})"
