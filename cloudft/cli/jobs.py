"""Open, print and follow a job: shared by the commands that take a JOB."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudft.cli import errors
from cloudft.cli.options import Console
from cloudft.storage.home import Home

if TYPE_CHECKING:
    from cloudft.backends.base import Backend
    from cloudft.errors import CloudftError, DamagedJob
    from cloudft.jobs.lifecycle import Job
    from cloudft.storage.store import JobRecord, Store


def open_job(reference: str) -> tuple[JobRecord, Backend, Store]:
    """Return the record that `reference` names, its backend, and the store.

    `reference` is an id, a unique prefix, a name (its newest job), or `-` for the last job.
    """
    from cloudft.jobs import lifecycle
    from cloudft.storage.store import Store

    home = Home.from_environ()
    store = Store(home.jobs)
    record = store.find_by_reference(reference)
    return record, lifecycle.backend_for(record, home), store


def use_inference_profile(backend: Backend, profile: str | None, console: Console) -> None:
    """Make a backend call base models by a profile, and print its notes on that.

    Raise UsageError for a profile that is none, and on a backend that has no such profiles.
    """
    from cloudft.backends.capabilities import SupportsInferenceProfiles
    from cloudft.errors import UsageError
    from cloudft.spec.fields import is_inference_profile

    if profile is not None and not is_inference_profile(profile):
        raise UsageError(
            f"{profile[:200]!r} is not an inference profile",
            fix="name an area (us, eu, global), an id such as us.amazon.nova-2-lite-v1:0, an ARN,"
            " or in-region.",
        )
    if isinstance(backend, SupportsInferenceProfiles):
        backend.use_inference_profile(profile, console.note)
    elif profile is not None:
        raise UsageError(
            f"{backend.name} has no inference profiles", fix="remove --inference-profile."
        )


def print_job(job: Job, console: Console) -> None:
    """Print one job as the command's result, with what its trackers have.

    What trackers lack of a job that has ended is sent from here on, in the background.
    """
    from cloudft.cli.job_page import job_page
    from cloudft.jobs.trackers import feed_ended_job
    from cloudft.storage.tracking_files import describe_trackers

    feed_ended_job(job.record, job.state)
    tracking = describe_trackers(job.record.folder)
    value = job.to_json() | ({"tracking": tracking} if tracking else {})
    lines = [f"{'tracking:':<12}{name}: {text}" for name, text in tracking.items()]
    console.print_result(value, "\n".join([job_page(job), *lines]))


def exit_code_of(job: Job) -> int:
    """Return 0 for a Completed job, 1 for one that Failed or was Stopped."""
    return 0 if job.state.status == "Completed" else 1


def max_hours_of(record: JobRecord) -> float | None:
    """Return the hours of training after which the job is stopped; None where it has no bound."""
    from cloudft.backends import FOLLOW_UP_BACKENDS

    # A copy of such a model has its job file, but nothing of it is trained.
    is_trained = record.backend not in FOLLOW_UP_BACKENDS
    if record.customization_type != "REINFORCEMENT_FINE_TUNING" or not is_trained:
        return None
    hours = (record.spec.get("reinforcement") or {}).get("max_hours")
    return None if hours is None else float(hours)


def _stop_at_bound(backend: Backend, hours: float, console: Console, job_id: str) -> None:
    """Stop a job whose training reaches its bound."""
    console.note(f"{job_id} reaches reinforcement.max_hours ({hours:g} h); stopping it ...")
    backend.stop(job_id)


def follow_job(job: Job, backend: Backend, timeout: float | None, console: Console) -> Job:
    """Follow a job until it ends, with progress on stderr, and return it.

    A job with reinforcement.max_hours is stopped when its training has taken so long. Ctrl-C ends
    the following and leaves the job running. Draws the loss curves of a finished job.
    """
    from cloudft.cli import job_progress, loss_plot
    from cloudft.jobs import lifecycle
    from cloudft.jobs import wait as waiting

    def print_outage(error: CloudftError) -> None:
        console.note(f"{error.message}\n  {error.fix}\n  will keep watching ...")

    describe = waiting.tolerating_outages(
        lambda: lifecycle.refresh(job.record, backend).state, print_outage, job.state
    )
    hours = max_hours_of(job.record)
    if hours is not None:
        # The next poll may come too late. Of a short bound, no more than a tenth is left.
        margin = min(backend.longest_poll_seconds or backend.poll_seconds, hours * 360)
        describe = waiting.stopping_after(
            describe,
            partial(_stop_at_bound, backend, hours, console),
            hours * 3600 - margin,
            on_outage=print_outage,
        )
    states = waiting.poll_until_ended(
        describe, timeout=timeout, poll=backend.poll_seconds, max_poll=backend.longest_poll_seconds
    )
    try:
        state = job_progress.show_progress(states, console)
    except KeyboardInterrupt:
        console.note(
            f"{job.record.id} keeps running; `cloudft watch {job.record.id}` follows it again."
        )
        raise
    if state.failure_message:
        console.note(state.failure_message)
    if state.artifacts:
        points = list(backend.metrics(job.record.backend_job_id or job.record.id))
        drawn = loss_plot.save_loss_plot(points, job.record.id, Path(state.artifacts).parent)
        console.debug(f"wrote {drawn}" if drawn else "the curves were not drawn")
    return lifecycle.Job(job.record, state)


def warn_damaged(error: DamagedJob) -> None:
    """Print one warning: which job can't be read, and how to fix it."""
    click.echo(
        f"warning: {error.message}{errors.location_suffix(error)}\n  fix: {error.fix}", err=True
    )
