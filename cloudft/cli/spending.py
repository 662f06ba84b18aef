"""ps and gc: what stands in an account and costs, and removing what cloudft made there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudft.cli.options import Console, complete_backend, console_options, place
from cloudft.cli.ranges import DAYS
from cloudft.home import Home

if TYPE_CHECKING:
    from cloudft.backends.base import Thing
    from cloudft.errors import CloudftError

cloud_option = click.option(
    "--backend",
    "backend_name",
    metavar="NAME",
    shell_complete=complete_backend,
    help="Only of this backend: bedrock or sagemaker.",
)


@click.command("ps", epilog="\b\nExample:\n  cloudft ps --cost --region us-east-1")
@cloud_option
@click.option("--cost", is_flag=True, help="What each costs an hour and a month, and the sum.")
@console_options
def ps_command(backend_name: str | None, cost: bool, console: Console) -> int:
    """List what stands in the account and Region: servings, models, machines, staged data.

    Everything is listed, whoever made it; the column JOB is empty where it was not cloudft.
    """
    from cloudft import cleanup
    from cloudft.cli.render import local_time, table
    from cloudft.cli.serving import dollars

    things = cleanup.everything(backend_name, Home.from_environ(), place(), _refusal)
    rows = []
    for thing in things:
        row = [thing.kind, thing.name, thing.status, thing.job, local_time(thing.created_at)]
        row.append("EXPIRED" if cleanup.expired(thing) else local_time(thing.expires_at))
        if cost:
            row += [dollars(thing.usd["perHour"]), dollars(thing.usd["perMonth"])]
        rows.append(row)
    columns = ["KIND", "NAME", "STATUS", "JOB", "CREATED", "EXPIRES"]
    total = cleanup.total(things)
    text = table(columns + (["AN HOUR", "A MONTH"] if cost else []), rows)
    if cost:
        unknown = sum(thing.usd["perMonth"] is None for thing in things)
        text += (
            f"\nknown: {dollars(total['perHour'])} an hour, {dollars(total['perMonth'])} a month"
        )
        text += f"; {unknown} of unknown price" if unknown else ""
        bases = dict.fromkeys((thing.kind, thing.basis) for thing in things if thing.basis)
        text += "".join(f"\n  {kind}: {basis}" for kind, basis in bases)
    result = {"things": things, "usd": total} if cost else {"things": things}
    console.result(result, text if things else "nothing stands here")
    return 0


@click.command(
    "gc",
    epilog="\b\nExamples:\n  cloudft gc --dry-run\n  cloudft gc --expired --yes\n"
    "  cloudft gc --kind provisioned-throughput --older-than 2",
)
@cloud_option
@click.option("--expired", is_flag=True, help="Only what has outlived its --ttl.")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(
        [
            *("deployment", "provisioned-throughput", "custom-model", "imported-model"),
            *("warm-pool", "data"),
        ]
    ),
    help="Only of this kind; may be given several times.",
)
@click.option("--older-than", type=DAYS, default=0.0, metavar="DAYS", help="Only older ones.")
@click.option("--dry-run", is_flag=True, help="List them and remove nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@console_options
def gc_command(
    backend_name: str | None,
    expired: bool,
    kinds: tuple[str, ...],
    older_than: float,
    dry_run: bool,
    yes: bool,
    console: Console,
) -> int:
    """Find what cloudft made in the account and Region, from any machine, and remove it.

    What cloudft did not make is never touched, nor a job that runs. A custom model that is removed
    is gone for good.
    """
    from cloudft import cleanup

    home, where = Home.from_environ(), place()
    things = cleanup.ours(
        backend_name,
        home,
        where,
        tell=_refusal,
        kinds=kinds,
        expired_only=expired,
        days=older_than,
    )
    listed = "\n".join(_line(thing) for thing in things)
    if dry_run or not things:
        console.result({"removed": [], "found": things}, listed or "nothing to remove")
        return 0
    if not yes:
        click.confirm(f"{listed}\nremove these {len(things)}?", abort=True, err=True)
    removed = []
    for thing in cleanup.remove(home, where, things):
        console.detail(f"removed {thing.kind} {thing.name}")
        removed.append(thing)
    text = "\n".join(f"removed {_line(thing)}" for thing in removed)
    console.result({"removed": removed, "found": things}, text)
    return 0


def _refusal(error: CloudftError) -> None:
    """A backend that may not be asked is said, not passed over."""
    click.echo(f"warning: {error.message}\n  fix: {error.fix}", err=True)


def _line(thing: Thing) -> str:
    return f"{thing.kind} {thing.name} ({thing.status}, of {thing.job}, {thing.created_at[:10]})"
