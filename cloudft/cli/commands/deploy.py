"""deploy: serve a tuned model on Bedrock, or put it behind a deployment that exists."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloudft.cli.command import command
from cloudft.cli.options import (
    Console,
    aws_options,
    complete_job,
    console_options,
    yes_option,
)
from cloudft.cli.param_types import HOURS, USD
from cloudft.errors import UsageError

if TYPE_CHECKING:
    from cloudft.cli.serving import DeployOptions


@command(
    "deploy",
    epilog="\b\nExamples:\n  cloudft deploy ticket-router --yes\n"
    "  cloudft deploy - --provisioned --units 1 --ttl 4 --dry-run\n"
    "  cloudft deploy ticket-router-2 --update ticket-router-1\n"
    "  cloudft deploy --rollback ticket-router-1\n"
    "  cloudft deploy - --provisioned --commitment OneMonth --max-cost 45000 --yes",
)
@click.argument("reference", metavar="[JOB]", required=False, shell_complete=complete_job)
@click.option(
    "--update",
    metavar="DEPLOYMENT",
    help="Put the job's model behind this deployment or throughput: its name, its ARN, or the job"
    " that it serves now.",
)
@click.option(
    "--rollback",
    metavar="DEPLOYMENT",
    help="Put back the model that this deployment served before its last update.",
)
@click.option(
    "--provisioned",
    is_flag=True,
    help="Use provisioned throughput, billed by the hour, even if on demand is possible.",
)
@click.option(
    "--units",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="Model units of provisioned throughput.",
)
@click.option(
    "--commitment",
    type=click.Choice(["OneMonth", "SixMonths"], case_sensitive=False),
    metavar="[OneMonth|SixMonths]",
    help="Buy provisioned throughput for a term: a lower price, billed to the end of the term.",
)
@click.option(
    "--max-cost",
    type=USD,
    metavar="USD",
    help="With --commitment: refuse a term that costs more. --yes needs it.",
)
@click.option(
    "--ttl",
    type=HOURS,
    metavar="HOURS",
    help="After this time `ps` marks it as expired and `gc` removes it; it never ends by itself.",
)
@click.option("--dry-run", is_flag=True, help="Print the API call and its cost; change nothing.")
@yes_option
@aws_options
@console_options
def deploy_command(console: Console, **options: object) -> int:
    """Serve a job's tuned model.

    An on-demand deployment costs nothing while idle, and is used if the model allows it. Otherwise
    provisioned throughput is used, which is billed by the hour until `cloudft undeploy`, used or
    not. An existing deployment is kept; --ttl renews it for that many hours from now.

    With --update, a deployment that exists serves the job's model from then on: its ARN, its time
    to live and its price stay. While it is updated, the old model answers.
    """
    from cloudft.cli import serving

    chosen = serving.DeployOptions(**options)  # type: ignore[arg-type]
    _check_combination(chosen)
    if chosen.update is not None or chosen.rollback is not None:
        return serving.update_deployment(chosen, console)
    return serving.create_deployment(chosen, console)


def _check_combination(options: DeployOptions) -> None:
    """Raise UsageError for options that exclude or need each other."""
    if options.update is not None and options.rollback is not None:
        raise UsageError("--update and --rollback exclude each other", fix="remove one of them.")
    if options.rollback is not None and options.reference is not None:
        raise UsageError(
            f"--rollback takes no JOB, but {options.reference} is named",
            fix="remove the job: the model of before the last update is put back.",
        )
    if options.rollback is None and options.reference is None:
        raise UsageError("no JOB is named", fix="name the job whose model is to be served.")
    change = "--update" if options.update is not None else "--rollback"
    created_only = {
        "--provisioned": options.provisioned,
        "--units": options.units != 1,
        "--commitment": options.commitment is not None,
        "--ttl": options.ttl is not None,
    }
    given = [name for name, is_given in created_only.items() if is_given]
    if given and (options.update is not None or options.rollback is not None):
        raise UsageError(
            f"{', '.join(given)} can't be changed by {change}",
            fix=f"remove {' and '.join(given)}; `cloudft deploy JOB` renews a time to live.",
        )
    if options.max_cost is not None and options.commitment is None:
        raise UsageError(
            "--max-cost limits the price of a commitment, and there is none",
            fix="add --commitment, or remove --max-cost.",
        )
