"""track: send a job's curves and results to its experiment trackers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudft.cli.command import command
from cloudft.cli.jobs import open_job
from cloudft.cli.options import Console, aws_options, console_options, job_argument
from cloudft.cli.param_types import SECONDS

if TYPE_CHECKING:
    from cloudft.storage.store import JobRecord
    from cloudft.storage.tracking_files import TrackingFolder


@command(
    "track",
    epilog="\b\nExamples:\n  cloudft track -\n  cloudft track ticket-router --output json",
)
@job_argument
@click.option(
    "--timeout",
    type=SECONDS,
    metavar="SECONDS",
    default=120.0,
    show_default=True,
    help="Wait so long for the trackers; they are fed on after it.",
)
@aws_options
@console_options
def track_command(reference: str, timeout: float, console: Console) -> int:
    """Send all of a job's curves and results to its experiment trackers again.

    What a tracker has already is compared and not sent twice. The trackers are those of the section
    `tracking` of the job file that was submitted last: to add one, submit the job again.

    Exit code 0 when every tracker has all of an ended job, or is fed while the job runs; 1 where
    one could not be.
    """
    from cloudft.jobs import lifecycle
    from cloudft.jobs.trackers import start_feeding
    from cloudft.storage.tracking_files import TrackingFolder, describe_trackers

    record, backend, _ = open_job(reference)
    job = lifecycle.refresh(record, backend)  # brings home what a job on AWS has left
    folder = TrackingFolder(record.folder)
    _require_trackers(record, folder)
    if job.state.has_ended:
        _forget_states(folder)
    start_feeding(record)
    if job.state.has_ended:
        _wait(folder, timeout)
    described = describe_trackers(record.folder)
    states = {name: folder.load_state(name) for name in described}
    value = {
        name: {"status": state.status if (state := states[name]) else "feeding", "text": text}
        for name, text in described.items()
    }
    text = "\n".join(f"{name + ':':<13}{text}" for name, text in described.items())
    console.print_result({"id": record.id, "trackers": value}, text)
    return 1 if any(state and state.status == "failed" for state in states.values()) else 0


def _require_trackers(record: JobRecord, folder: TrackingFolder) -> None:
    """Raise UsageError for a job without trackers."""
    from cloudft.errors import UsageError

    if not folder.load_settings():
        raise UsageError(
            f"{record.id} has no trackers",
            fix="add a section `tracking` to its job file and submit it again: that returns the"
            " same job and feeds its trackers.",
        )


def _forget_states(folder: TrackingFolder) -> None:
    """Remove what is known of trackers that nothing feeds: it is found again."""
    for name in folder.load_settings():
        if not folder.is_being_fed(name):
            (folder.path / f"{name}.json").unlink(missing_ok=True)


def _wait(folder: TrackingFolder, timeout: float) -> None:
    """Wait until no tracker is being fed, or the time is up."""
    import time

    def has_ended(name: str) -> bool:
        state = folder.load_state(name)
        return state is not None and state.status != "feeding"

    end = time.monotonic() + timeout
    while time.monotonic() < end and not all(map(has_ended, folder.load_settings())):
        time.sleep(0.1)
