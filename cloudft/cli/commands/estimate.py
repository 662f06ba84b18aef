"""estimate: estimate a job's tokens, time and cost before it is submitted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudft.cli.command import command
from cloudft.cli.job_file import load_job_file
from cloudft.cli.options import (
    Console,
    aws_options,
    complete_backend,
    console_options,
    job_file_argument,
    spec_options,
)
from cloudft.storage.home import Home

if TYPE_CHECKING:
    from cloudft.types import Estimate


@command(
    "estimate",
    epilog="\b\nExamples:\n  cloudft estimate\n"
    "  cloudft estimate --set hyperparameters.epochCount=5 --output json\n"
    "  cloudft estimate --backend sagemaker\n"
    "  cloudft estimate --probe",
)
@job_file_argument
@click.option(
    "--probe",
    is_flag=True,
    help="Check that the job fits into this machine's memory, and time some training steps.",
)
@click.option(
    "--backend",
    "backend_name",
    metavar="NAME",
    shell_complete=complete_backend,
    help="Estimate for this backend only; default: for each.",
)
@click.option(
    "--steps",
    type=click.IntRange(0, 1000),
    default=20,
    show_default=True,
    help="Training steps of --probe.",
)
@spec_options
@aws_options
@console_options
def estimate_command(
    path: Path | None,
    probe: bool,
    backend_name: str | None,
    steps: int,
    flags: dict[str, str],
    console: Console,
) -> int:
    """Estimate tokens, time and cost of a job on each backend, with the price's source and date.

    Tokens are counted by the model's tokenizer where it is on this machine, for the backends that
    train with it; otherwise they are estimated from characters. A price without a source is
    unknown, not zero. --probe
    measures the local job's tokens, memory and time on this machine: memory before the model is
    loaded, time by training steps on the job's data, whose result is discarded.
    """
    from cloudft.cli.output import format_table, print_findings
    from cloudft.cli.progress import run_observer, task_progress
    from cloudft.jobs import prepare

    job = load_job_file(path, flags)
    print_findings(job.findings)
    home = Home.from_environ()
    with run_observer(console) as observer:
        estimates = prepare.estimate_all(job, home, observer, backend_name)
    if probe:
        with task_progress(console) as bars, run_observer(console, on_progress=bars) as observer:
            probed = prepare.probe_estimates(job, home, steps, observer)
        estimates = [
            next((b for b in probed if b.backend == one.backend), one) for one in estimates
        ]
    columns = (
        "BACKEND",
        "TOKENS",
        "EPOCHS",
        "TRAINING",
        "STORAGE PER MONTH",
        "SERVING PER HOUR",
        "PRICE",
    )
    text = [
        format_table(columns, map(_estimate_row, estimates)),
        *(line for one in estimates for line in _probe_lines(one)),
    ]
    text += [
        f"{one.backend}: no price is known for {one.unpriced.what}\n"
        f"  fix: {prepare.price_remedy(one, 'then estimate again')}"
        for one in estimates
        if one.unpriced is not None and one.usd["training"] is None
    ]
    console.print_result(estimates, "\n".join(text))
    return 0


def _probe_lines(estimate: Estimate) -> Iterator[str]:
    """Yield the result of a probe in sentences."""
    from cloudft.cli.number_format import format_duration, format_gibibytes

    memory = estimate.memory
    if memory is not None:
        free = f" of {format_gibibytes(memory.available)} free" if memory.available else ""
        verdict = "fits" if memory.fits else "does not fit"
        yield f"{estimate.backend}: {verdict}: {format_gibibytes(memory.bytes)} of memory{free}"
        if memory.remedy:
            yield f"  fix: {memory.remedy}"
    if estimate.seconds is not None:
        time = format_duration(estimate.seconds)
        yield f"{estimate.backend}: {estimate.steps} steps, {time} in total"


def _estimate_row(estimate: Estimate) -> tuple[Any, ...]:
    from cloudft.cli.number_format import format_usd

    usd = estimate.usd
    bound = "at most " if estimate.at_most and usd["training"] is not None else ""
    amounts = (usd["storagePerMonth"], usd["servingPerHour"])
    dated = estimate.price_source.endswith(estimate.price_date)
    source = estimate.price_source + ("" if dated else f", {estimate.price_date}")
    return (
        estimate.backend,
        f"{'' if estimate.tokens_counted else 'about '}{estimate.train_tokens}",
        estimate.epochs,
        bound + format_usd(usd["training"]),
        *(format_usd(amount) for amount in amounts),
        source,
    )
