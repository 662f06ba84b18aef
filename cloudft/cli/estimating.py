"""estimate: what a job would take, before anything is sent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudft.cli.options import Console, console_options, job_file_argument, spec_options
from cloudft.cli.submitting import load
from cloudft.home import Home

if TYPE_CHECKING:
    from cloudft.types import Estimate


@click.command(
    "estimate",
    epilog="\b\nExamples:\n  cloudft estimate\n"
    "  cloudft estimate --set hyperparameters.epochCount=5 --output json",
)
@job_file_argument
@spec_options
@console_options
def estimate_command(path: Path | None, flags: dict[str, str], console: Console) -> int:
    """Tokens and cost of a job on each backend, with the price's source and date.

    Tokens are estimated from characters. A price that no source has is unknown, not zero.
    """
    from cloudft import jobs
    from cloudft.cli.progress import reading
    from cloudft.cli.render import table, warn

    job = load(path, flags)
    warn(job.findings)
    with reading(console) as progress:
        found = jobs.estimates(job, Home.from_environ(), progress)
    columns = (
        "BACKEND",
        "TOKENS",
        "EPOCHS",
        "TRAINING",
        "STORAGE A MONTH",
        "SERVING AN HOUR",
        "PRICE",
    )
    console.result(found, table(columns, map(_row, found)))
    return 0


def _row(estimate: Estimate) -> tuple[Any, ...]:
    from cloudft.cli.serving import dollars

    usd = estimate.usd
    amounts = (usd["training"], usd["storagePerMonth"], usd["servingPerHour"])
    source = ", ".join(part for part in (estimate.price_source, estimate.price_date) if part)
    return (
        estimate.backend,
        estimate.train_tokens,
        estimate.epochs,
        *(dollars(amount) for amount in amounts),
        source,
    )
