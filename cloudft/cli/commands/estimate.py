"""estimate: estimate a job's tokens, time and cost before it is submitted."""

from __future__ import annotations

from pathlib import Path

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
    from cloudft.cli.estimate_text import estimates_text
    from cloudft.cli.output import print_findings
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
    console.print_result(estimates, estimates_text(estimates))
    return 0
