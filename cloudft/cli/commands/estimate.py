"""estimate: estimate a job's tokens, time and cost before it is submitted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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
from cloudft.errors import UsageError
from cloudft.storage.home import Home

if TYPE_CHECKING:
    from cloudft.spec.load import LoadedJob


@command(
    "estimate",
    epilog="\b\nExamples:\n  cloudft estimate\n"
    "  cloudft estimate --set hyperparameters.epochCount=5 --output json\n"
    "  cloudft estimate --backend sagemaker\n"
    "  cloudft estimate --probe\n"
    "  cloudft estimate --compare --requests 100000 --months 12 --plot routes.svg",
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
@click.option(
    "--compare",
    is_flag=True,
    help="Set all routes to a tuned model side by side: training, storage, serving, time.",
)
@click.option(
    "--requests",
    type=click.IntRange(0, 10**12),
    default=10_000,
    show_default=True,
    help="With --compare: requests a month.",
)
@click.option(
    "--input-tokens",
    type=click.IntRange(1, 10**7),
    help="With --compare: tokens of a prompt; the mean of the data if unset.",
)
@click.option(
    "--output-tokens",
    type=click.IntRange(1, 10**7),
    help="With --compare: tokens of an answer; the mean of the data if unset.",
)
@click.option(
    "--months",
    type=click.IntRange(1, 120),
    default=12,
    show_default=True,
    help="With --compare: months of storage and serving in the total.",
)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="With --compare: draw the total cost by requests a month (.png, .svg).",
)
@spec_options
@aws_options
@console_options
def estimate_command(
    path: Path | None,
    probe: bool,
    backend_name: str | None,
    steps: int,
    compare: bool,
    requests: int,
    input_tokens: int | None,
    output_tokens: int | None,
    months: int,
    plot: Path | None,
    flags: dict[str, str],
    console: Console,
) -> int:
    """Estimate tokens, time and cost of a job on each backend, with the price's source and date.

    Tokens are counted by the model's tokenizer where it is on this machine, for the backends that
    train with it; otherwise they are estimated from characters. A price without a source is
    unknown, not zero.

    --probe measures the local job's tokens, memory and time on this machine: memory before the
    model is loaded, time by training steps on the job's data, whose result is discarded.

    --compare sets all routes to a tuned model for this data side by side: fine-tuning by each
    model of Bedrock that takes the data, distillation, and training open weights here or on
    SageMaker with an import, each with what it costs to store and to serve.
    """
    from cloudft.cli.estimate_text import estimates_text
    from cloudft.cli.output import print_findings
    from cloudft.cli.progress import run_observer, task_progress
    from cloudft.jobs import prepare

    job = load_job_file(path, flags)
    print_findings(job.findings)
    home = Home.from_environ()
    if compare:
        lengths = (input_tokens, output_tokens)
        return _compare_routes(job, home, lengths, (requests, months), plot, console)
    _refuse_without_compare()
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


def _refuse_without_compare() -> None:
    """Raise UsageError for an option that would change nothing without --compare."""
    from click.core import ParameterSource

    context = click.get_current_context()
    for name in ("requests", "input_tokens", "output_tokens", "months", "plot"):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag} needs --compare", field=flag, fix="add --compare.")


def _compare_routes(
    job: LoadedJob,
    home: Home,
    lengths: tuple[int | None, int | None],
    usage: tuple[int, int],
    plot: Path | None,
    console: Console,
) -> int:
    """Print all routes for the job's data; `usage` is requests a month, and months."""
    from cloudft.cli.progress import run_observer
    from cloudft.cli.routes_plot import draw_routes
    from cloudft.cli.routes_text import comparison_text
    from cloudft.jobs import routes

    with run_observer(console) as observer:
        comparison = routes.compare(job, home, routes.Usage(*lengths, *usage), observer)
    if plot is not None:
        left_out = draw_routes(comparison, plot)
        console.note(f"wrote {plot}")
        if left_out:
            console.note(
                f"not in the picture (the dearest, and unknown costs): {', '.join(left_out)}"
            )
    console.print_result(routes.to_json(comparison), comparison_text(comparison))
    return 0
