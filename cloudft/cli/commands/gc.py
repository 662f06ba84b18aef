"""gc: remove what cloudft made in the account and nobody needs."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from cloudft.cli.command import command
from cloudft.cli.options import Console, aws_location, aws_options, cloud_option, console_options
from cloudft.cli.output import print_unavailable
from cloudft.cli.param_types import DAYS
from cloudft.storage.home import Home
from cloudft.types import Listing

if TYPE_CHECKING:
    from cloudft.account.cleanup import KeptReason
    from cloudft.backends.resources import CloudResource


@command(
    "gc",
    epilog="\b\nExamples:\n  cloudft gc --dry-run\n  cloudft gc --expired --yes\n"
    "  cloudft gc ticket-router-5d6e1f0a --yes\n"
    "  cloudft gc --kind provisioned-throughput --older-than 2 --live",
)
@click.argument("names", metavar="[NAME...]", nargs=-1)
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
@click.option("--live", is_flag=True, help="Also what is not expired, and models of known jobs.")
@click.option("--all-homes", is_flag=True, help="Also of jobs that other machines submitted.")
@click.option("--dry-run", is_flag=True, help="List them and remove nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@aws_options
@console_options
def gc_command(
    names: tuple[str, ...],
    backend_name: str | None,
    expired: bool,
    kinds: tuple[str, ...],
    older_than: float,
    live: bool,
    all_homes: bool,
    dry_run: bool,
    yes: bool,
    console: Console,
) -> int:
    """Find what cloudft made in the account and Region and nobody needs any more, and remove it.

    That is what has outlived its --ttl, staged data of jobs that have ended, and models of jobs
    that were deleted here: all of jobs that this machine has submitted. More with --live and
    --all-homes, or by NAME: a name or id that `ps` lists, or a job's id for all that it has.

    What cloudft did not make is never touched, nor a job that runs. A custom model that is removed
    is gone for good.
    """
    from cloudft.account import cleanup

    home, where = Home.from_environ(), aws_location()
    wanted = cleanup.GarbageCriteria(
        names, backend_name, kinds, expired, older_than, live, all_homes
    )
    found = cleanup.find_garbage(cleanup.list_account(None, home, where), home, wanted)
    things = found.removable
    result: dict[str, Any] = {
        "removed": [],
        "found": things,
        "left": [{"why": why, "thing": thing} for thing, why in found.kept],
        "unavailable": found.unavailable,
    }
    _print_kept(found.kept, console)
    print_unavailable(found.unavailable)
    code = Listing((), found.unavailable).exit_code
    listed = "\n".join(_resource_line(thing) for thing in things)
    if dry_run or not things:
        nothing = "nothing to remove" + (" in what could be read" if code else "")
        console.print_result(result, listed or nothing)
        return code
    if not yes:
        click.confirm(f"{listed}\nremove these {len(things)}?", abort=True, err=True)
    removed = result["removed"]
    for thing in cleanup.remove_resources(home, where, things):
        console.debug(f"removed {thing.kind} {thing.name}")
        removed.append(thing)
    console.print_result(result, "\n".join(f"removed {_resource_line(thing)}" for thing in removed))
    return code


def _print_kept(left: tuple[tuple[CloudResource, KeptReason], ...], console: Console) -> None:
    """Say what of cloudft's was left, and the flag that takes it."""
    flags: dict[KeptReason, str] = {
        "live": "live: --live",
        "another-home": "of other machines: --all-homes",
    }
    counts = Counter(why for _, why in left)
    if counts:
        told = ", ".join(f"{counts[why]} {flags[why]}" for why in flags if counts[why])
        console.note(f"left as they are ({told})")


def _resource_line(thing: CloudResource) -> str:
    return f"{thing.kind} {thing.name} ({thing.status}, of {thing.job}, {thing.created_at[:10]})"
