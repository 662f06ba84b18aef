"""delete: remove a job and its files from this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudft.cli.command import command
from cloudft.cli.jobs import open_job, warn_damaged
from cloudft.cli.options import Console, aws_options, console_options, job_argument, yes_option
from cloudft.storage.home import Home

if TYPE_CHECKING:
    from cloudft.backends.base import Backend
    from cloudft.backends.resources import CloudResource
    from cloudft.errors import JobStateConflict
    from cloudft.storage.store import JobRecord


@command("delete", epilog="\b\nExample:\n  cloudft delete ticket-router-1f3a --yes")
@job_argument
@yes_option
@click.option(
    "--force",
    is_flag=True,
    help="Delete also a job whose model is served, that AWS no longer knows, or that is damaged and"
    " may be running.",
)
@aws_options
@console_options
def delete_command(reference: str, yes: bool, force: bool, console: Console) -> int:
    """Delete a job and its files on this machine: model, curves, log, checkpoints.

    Refused, unless with --force, while a deployment on AWS serves the job's model.
    """
    from cloudft.backends.capabilities import SupportsInventory
    from cloudft.errors import DamagedJob
    from cloudft.jobs import lifecycle
    from cloudft.storage.store import Store

    def confirm(question: str) -> None:
        if not yes:
            click.confirm(question, abort=True, err=True)

    stays = ""
    try:
        record, backend, store = open_job(reference)
        job_id = record.id
        if not force:
            _refuse_while_served(record, backend)
        if isinstance(backend, SupportsInventory):
            stays = (
                "what the account has of it stays and may be billed: `cloudft ps --cost` lists it,"
                " `cloudft gc NAME` removes it"
            )
            confirm(f"delete {job_id} from this machine? ({stays})")
        else:
            confirm(f"delete {job_id} and its model?")
        lifecycle.delete(record, backend, store, force=force)
    except DamagedJob as error:
        if error.job is None:
            raise
        job_id = error.job
        warn_damaged(error)
        confirm(f"delete {job_id} from this machine?")
        lifecycle.delete_damaged(error, Store(Home.from_environ().jobs), force=force)
    if stays:
        console.note(f"{job_id}: {stays}")
    console.print_result({"id": job_id, "deleted": True}, f"{job_id}: deleted")
    return 0


def _refuse_while_served(record: JobRecord, backend: Backend) -> None:
    """Raise JobStateConflict where a deployment serves the job's model.

    Print a warning where one could be rolled back to it, and where that can't be read: only what
    this machine has of the job is deleted.
    """
    from cloudft.backends.capabilities import SupportsServing
    from cloudft.errors import CloudRefused, CloudUnreachable, JobNotFound

    if not isinstance(backend, SupportsServing):
        return
    job_id = record.backend_job_id or record.id
    try:
        users = backend.list_servings(job_id, with_rollbacks=True)
        # The others serve the model of another job; what cloudft did not create has none.
        serving = [user for user in users if user.job in (record.id, None)]
    except JobNotFound:  # the deletion itself says so
        return
    except (CloudRefused, CloudUnreachable) as error:
        what = f"warning: whether something serves the model of {record.id} is unknown"
        click.echo(f"{what}: {error.message}\n  fix: {error.fix}", err=True)
        return
    if serving:
        raise _served_error(record, serving)
    for deployment in users:
        click.echo(
            f"warning: {deployment.kind} {deployment.name} could be rolled back to the model of"
            f" {record.id}, which stays in the account",
            err=True,
        )


def _served_error(record: JobRecord, serving: list[CloudResource]) -> JobStateConflict:
    from cloudft.errors import JobStateConflict

    names = ", ".join(f"{deployment.kind} {deployment.name}" for deployment in serving)
    remedies = [f"delete it here all the same: cloudft delete {record.id} --force"]
    if any(deployment.job is not None for deployment in serving):
        remedies.insert(0, f"`cloudft undeploy {record.id}` first")
    return JobStateConflict(
        f"{names} serves the model of {record.id}", fix=f"{', or '.join(remedies)}."
    )
