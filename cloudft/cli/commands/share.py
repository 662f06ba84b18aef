"""share: share a custom model with another account, or stop that."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from cloudft.cli.command import command
from cloudft.cli.jobs import open_job
from cloudft.cli.options import Console, aws_options, console_options, job_argument, yes_option

if TYPE_CHECKING:
    from cloudft.backends.capabilities import SharesModels
    from cloudft.backends.resources import ModelShare

ACCOUNT = re.compile(r"[0-9]{12}")


@command(
    "share",
    epilog="\b\nExamples:\n  cloudft share ticket-router --with 111122223333 --dry-run\n"
    "  cloudft share ticket-router --with 111122223333 --stop --yes",
)
@job_argument
@click.option(
    "--with", "account", required=True, metavar="ACCOUNT", help="Number of the other account."
)
@click.option("--stop", is_flag=True, help="Stop sharing; copies in the other account stay.")
@click.option("--dry-run", is_flag=True, help="Print the API call; share nothing.")
@yes_option
@aws_options
@console_options
def share_command(
    reference: str, account: str, stop: bool, dry_run: bool, yes: bool, console: Console
) -> int:
    """Share a job's custom model with another account of your organization, by AWS RAM.

    The other account copies the model before it can use it: `cloudft copy ARN --region REGION`.
    Sharing costs nothing. The same model is shared with an account once.
    """
    from cloudft.backends.capabilities import SharesModels
    from cloudft.cli.output import json_text, print_findings
    from cloudft.errors import UsageError

    if not ACCOUNT.fullmatch(account):
        raise click.UsageError(f"--with {account}: an account number has 12 digits")
    record, backend, _ = open_job(reference)
    if not isinstance(backend, SharesModels):
        what = f"a job on {record.backend} has no model that can be shared"
        raise UsageError(what, fix="share a model of a job on bedrock.")
    share, findings = backend.plan_share(record.backend_job_id or record.id, account)
    if stop:
        return _stop(share, backend, console, dry_run=dry_run, yes=yes)
    print_findings(findings)
    if dry_run:
        exists = f"it is shared already: {share.arn}"
        console.print_result(share, exists if share.arn else json_text(share.call))
        return 0
    if share.arn is None and not yes:
        click.confirm(f"share {share.model} with {account}?", abort=True, err=True)
    share = backend.share(share)
    console.note(f"there: cloudft copy {share.model} --region REGION")
    console.print_result(share, f"{share.arn}  {share.status}")
    return 0


def _stop(
    share: ModelShare, backend: SharesModels, console: Console, *, dry_run: bool, yes: bool
) -> int:
    """Remove the share after a confirmation; return the exit code."""
    text = f"{share.model} is not shared with {share.account}"
    if share.arn is not None:
        text = f"would remove the share {share.name}" if dry_run else f"removed {share.name}"
        if not dry_run:
            if not yes:
                click.confirm(f"stop sharing {share.name}?", abort=True, err=True)
            backend.unshare(share)
            share = replace(share, status="DELETED")
    console.print_result(share, text)
    return 0
