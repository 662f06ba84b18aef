"""metrics: print or plot a job's loss curves."""

from __future__ import annotations

from pathlib import Path

import click

from cloudft.cli.command import command
from cloudft.cli.jobs import open_job
from cloudft.cli.loss_plot import draw_loss_plot
from cloudft.cli.options import Console, aws_options, console_options, job_argument


@command("metrics", epilog="\b\nExample:\n  cloudft metrics - --plot loss.png")
@job_argument
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a plot to this file (.png, .svg) instead of printing the numbers.",
)
@aws_options
@console_options
def metrics_command(reference: str, plot: Path | None, console: Console) -> int:
    """Print or plot a job's loss curves, also while it is running."""
    from cloudft.cli.job_page import metric_columns, metric_rows
    from cloudft.cli.output import format_table

    record, backend, _ = open_job(reference)
    points = list(backend.metrics(record.backend_job_id or record.id))
    if plot is not None:
        draw_loss_plot(points, record.id, plot)
        console.print_result(points, str(plot))
        return 0
    console.print_result(points, format_table(metric_columns(points), metric_rows(points)))
    return 0
