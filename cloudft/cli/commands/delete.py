"""delete: remove a job and its files from this machine."""

from __future__ import annotations

import click

from cloudft.cli.command import command
from cloudft.cli.jobs import open_job, warn_damaged
from cloudft.cli.options import Console, aws_options, console_options, job_argument, yes_option
from cloudft.storage.home import Home


@command("delete", epilog="\b\nExample:\n  cloudft delete ticket-router-1f3a --yes")
@job_argument
@yes_option
@click.option(
    "--force",
    is_flag=True,
    help="Delete also a job that AWS no longer knows, or a damaged one that may be running.",
)
@aws_options
@console_options
def delete_command(reference: str, yes: bool, force: bool, console: Console) -> int:
    """Delete a job and its files on this machine: model, curves, log, checkpoints."""
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
