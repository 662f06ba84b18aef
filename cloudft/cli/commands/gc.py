"""gc: remove cloudft's unused resources from the AWS account, or unused tokens from here."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from cloudft.cli.command import command
from cloudft.cli.options import (
    Console,
    aws_location,
    aws_options,
    cloud_option,
    console_options,
    yes_option,
)
from cloudft.cli.output import print_unavailable
from cloudft.cli.param_types import DAYS
from cloudft.errors import UsageError
from cloudft.storage.home import Home
from cloudft.types import Listing

if TYPE_CHECKING:
    from cloudft.account.cleanup import Garbage, KeptReason
    from cloudft.backends.local.kept_tokens import KeptTokens
    from cloudft.backends.resources import CloudResource


@command(
    "gc",
    epilog="\b\nExamples:\n  cloudft gc --dry-run\n  cloudft gc --expired --yes\n"
    "  cloudft gc ticket-router-5d6e1f0a --yes\n"
    "  cloudft gc --kind provisioned-throughput --older-than 2 --live\n"
    "  cloudft gc --local --dry-run",
)
@click.argument("names", metavar="[NAME...]", nargs=-1)
@cloud_option
@click.option("--expired", is_flag=True, help="Remove only what is older than its --ttl.")
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
    help="Remove only this kind; can be repeated.",
)
@click.option(
    "--older-than", type=DAYS, default=0.0, metavar="DAYS", help="Remove only older resources."
)
@click.option(
    "--live", is_flag=True, help="Remove also what is not expired, and models of known jobs."
)
@click.option(
    "--all-homes", is_flag=True, help="Remove also resources of jobs that other machines submitted."
)
@click.option(
    "--local",
    "is_local",
    is_flag=True,
    help="Remove instead tokens on this machine that no job needs which can still go on.",
)
@click.option("--dry-run", is_flag=True, help="List the resources and remove nothing.")
@yes_option
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
    is_local: bool,
    dry_run: bool,
    yes: bool,
    console: Console,
) -> int:
    """Remove cloudft's unused resources from the account and Region.

    Unused are: what is older than its --ttl, staged data of jobs that have ended, and models of
    jobs that were deleted here; only of jobs that this machine has submitted. --live and
    --all-homes remove more, as does NAME: a name or id that `ps` lists, or the id of a job.

    What cloudft did not create is never removed, nor a running job. A custom model that is removed
    can't be restored. With --local nothing of the account is read or removed.
    """
    from cloudft.account import cleanup

    if is_local:
        others = (names, backend_name, kinds, expired, live, all_homes)
        return _remove_local(others, older_than, dry_run=dry_run, yes=yes, console=console)
    home, location = Home.from_environ(), aws_location()
    criteria = cleanup.GarbageCriteria(
        names, backend_name, kinds, expired, older_than, live, all_homes
    )
    garbage = cleanup.find_garbage(cleanup.list_account(None, home, location), home, criteria)
    resources = garbage.removable
    result: dict[str, Any] = {
        "removed": [],
        "found": resources,
        "left": [{"why": why, "thing": resource} for resource, why in garbage.kept],
        "unavailable": garbage.unavailable,
    }
    _print_kept(garbage.kept, console)
    _warn_of_rollbacks(garbage)
    print_unavailable(garbage.unavailable)
    code = Listing((), garbage.unavailable).exit_code
    listed = "\n".join(_resource_line(resource) for resource in resources)
    if dry_run or not resources:
        nothing = "nothing to remove" + (" in what could be read" if code else "")
        console.print_result(result, listed or nothing)
        return code
    if not yes:
        click.confirm(f"{listed}\nremove these {len(resources)}?", abort=True, err=True)
    removed = result["removed"]
    for resource in cleanup.remove_resources(home, location, resources):
        console.debug(f"removed {resource.kind} {resource.name}")
        removed.append(resource)
    console.print_result(
        result, "\n".join(f"removed {_resource_line(resource)}" for resource in removed)
    )
    return code


def _remove_local(
    others: tuple[object, ...], older_than: float, *, dry_run: bool, yes: bool, console: Console
) -> int:
    """Remove kept tokens that no job needs, or list them. `others` are options of the account."""
    from cloudft.backends.local.kept_tokens import find_unused_tokens, remove_tokens

    if any(others):
        raise UsageError(
            "--local removes tokens of this machine, and the other options choose resources of an"
            " account",
            fix="leave them out; --older-than, --dry-run and --yes go with --local.",
        )
    unused = find_unused_tokens(Home.from_environ(), older_than_days=older_than)
    listed = [_tokens_line(tokens) for tokens in unused]
    result: dict[str, Any] = {"removed": [], "found": [_tokens_result(one) for one in unused]}
    if dry_run or not unused:
        console.print_result(result, "\n".join(listed) or "nothing to remove")
        return 0
    if not yes:
        question = "\n".join([*listed, f"remove these {len(unused)}?"])
        click.confirm(question, abort=True, err=True)
    for tokens in remove_tokens(unused):
        result["removed"].append(_tokens_result(tokens))
    console.print_result(result, "\n".join(f"removed {line}" for line in listed))
    return 0


def _tokens_line(tokens: KeptTokens) -> str:
    state = "" if tokens.is_whole else "left by a killed trainer, "
    used = tokens.last_used_at[:10]
    return f"tokens {tokens.name} ({state}{tokens.bytes / 1e6:,.1f} MB, last used {used})"


def _tokens_result(tokens: KeptTokens) -> dict[str, Any]:
    return {
        "name": tokens.name,
        "bytes": tokens.bytes,
        "lastUsedAt": tokens.last_used_at,
        "whole": tokens.is_whole,
    }


def _warn_of_rollbacks(garbage: Garbage) -> None:
    """Print which deployments could not be rolled back any more."""
    for model in garbage.removable:
        for deployment in garbage.rollbacks.get(model.id, ()):
            click.echo(
                f"warning: {deployment.kind} {deployment.name} served {model.name} before its last"
                f" update: without it, `cloudft deploy --rollback {deployment.name}` is impossible",
                err=True,
            )


def _print_kept(kept: tuple[tuple[CloudResource, KeptReason], ...], console: Console) -> None:
    """Print how many unused resources were kept, and the flags that remove them."""
    flags: dict[KeptReason, str] = {
        "live": "live: --live",
        "another-home": "of other machines: --all-homes",
        "use-unknown": "that a job may be reading: name the data by its id",
        "committed": "bought for a term that has not ended: `cloudft ps` shows its end",
    }
    counts = Counter(why for _, why in kept)
    if counts:
        listed = ", ".join(f"{counts[why]} {flags[why]}" for why in flags if counts[why])
        console.note(f"kept ({listed})")


def _resource_line(resource: CloudResource) -> str:
    created = resource.created_at[:10]
    return f"{resource.kind} {resource.name} ({resource.status}, of {resource.job}, {created})"
