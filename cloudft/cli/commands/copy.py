"""copy: copy a custom model to another Region, or take one that another account shares."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudft.cli.command import command
from cloudft.cli.jobs import open_job
from cloudft.cli.options import (
    Console,
    aws_location,
    aws_options,
    complete_job,
    console_options,
    force_new_option,
    wait_timeout_option,
)
from cloudft.storage.home import Home

if TYPE_CHECKING:
    from cloudft.backends.base import StagedJob
    from cloudft.jobs.derived_models import DerivedModelOptions
    from cloudft.types import Finding


@command(
    "copy",
    epilog="\b\nExamples:\n  cloudft copy ticket-router --region eu-west-1 --wait\n"
    "  cloudft copy - --region us-west-2 --dry-run",
)
@click.argument("reference", metavar="JOB|ARN", shell_complete=complete_job)
@click.option("--name", default="", help="Name of the copy; derived from the model's if unset.")
@click.option(
    "--kms-key-id",
    metavar="KEY",
    help="Key that encrypts the copy, in the Region that is copied to.",
)
@click.option(
    "--base-model",
    metavar="ALIAS",
    help="Base model, for the ARN of a model that was trained in SageMaker.",
)
@click.option("--dry-run", is_flag=True, help="Check, and print the API call; create nothing.")
@click.option("--policy", is_flag=True, help="Print the IAM policy that the copy needs.")
@click.option("--wait", is_flag=True, help="Follow the copy until it ends.")
@wait_timeout_option
@force_new_option
@aws_options
@console_options
def copy_command(
    reference: str,
    name: str,
    kms_key_id: str | None,
    base_model: str | None,
    dry_run: bool,
    policy: bool,
    wait: bool,
    timeout: float | None,
    force_new: bool,
    console: Console,
) -> int:
    """Copy a custom model to another Region.

    --region is the Region to copy to. The copy is a job of its own: `watch`, `deploy`, `generate`
    and `undeploy` take it, and call its Region. A copy costs nothing, its storage is billed by the
    month until `cloudft gc` removes it. The same copy submitted twice is one copy.

    An ARN names a custom model without a job here, or one that another account shares.
    """
    from cloudft.cli.follow_up import FollowUpOptions, submit_and_report
    from cloudft.cli.output import json_text, print_findings
    from cloudft.jobs import derived_models

    if timeout is not None and not wait:
        raise click.UsageError("--timeout needs --wait")
    options = derived_models.DerivedModelOptions(name, kms_key_id, base_model)
    staged, findings = _prepare(reference, options)
    print_findings(findings)
    if policy:
        document = derived_models.caller_policy(derived_models.COPY, staged, Home.from_environ())
        console.print_result(document, json_text(document))
        return 0
    follow = FollowUpOptions(dry_run, wait, timeout, force_new)
    return submit_and_report(staged, derived_models.COPY, follow, console)


def _prepare(reference: str, options: DerivedModelOptions) -> tuple[StagedJob, list[Finding]]:
    """Return the copy of the model of a job, or of an ARN, and warnings."""
    from cloudft.aws.client import Aws, AwsLocation
    from cloudft.aws.identity import get_identity
    from cloudft.errors import UsageError
    from cloudft.jobs import derived_models

    home, location = Home.from_environ(), aws_location()
    if location["region"] is None:
        fix = "add --region with the Region to copy to."
        raise UsageError("no Region to copy to is set", fix=fix)
    if derived_models.MODEL_ARN.fullmatch(reference):
        account = get_identity(Aws(AwsLocation(**location)), None, None).account
        return derived_models.prepare_copy_of_arn(reference, account, home, location, options)
    record, backend, _ = open_job(reference)
    return derived_models.prepare_copy_of_job(record, backend, home, location, options)
