"""metrics: the loss curves as numbers and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from cloudft.cli.jobs import open_job
from cloudft.cli.options import Console, console_options, job_argument
from cloudft.errors import UsageError
from cloudft.types import Metric


@click.command("metrics", epilog="\b\nExample:\n  cloudft metrics - --plot loss.png")
@job_argument
@click.option(
    "--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw the curves (.png, .svg)."
)
@console_options
def metrics_command(reference: str, plot: Path | None, console: Console) -> int:
    """Print or plot a job's loss curves, also while it runs."""
    from cloudft.cli.render import metric_rows, table

    record, backend, _ = open_job(reference)
    points = list(backend.metrics(record.backend_job_id or record.id))
    if plot is not None:
        draw(points, record.id, plot)
        console.note(f"wrote {plot}")
    columns = ("STEP", "EPOCH", "SPLIT", "LOSS", "PERPLEXITY", "RATE", "TOKENS/S")
    console.result(points, table(columns, metric_rows(points)))
    return 0


def draw(points: Sequence[Metric], title: str, to: Path) -> None:
    """Training and validation loss over steps, as a picture. Raises UsageError."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(
            "drawing needs matplotlib, which is not installed", fix="pip install 'cloudft[plot]'"
        ) from error
    if not points:
        raise UsageError("there is no point on the curve yet", fix="wait for the first step.")
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for split, style in (("train", {"lw": 1.2}), ("validation", {"lw": 1.2, "marker": "o"})):
        curve = [(point.step, point.loss) for point in points if point.split == split]
        if curve:
            axes.plot(*zip(*curve, strict=True), label=split, **style)
    axes.set(title=title, xlabel="step", ylabel="loss (nats per token)", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    try:
        figure.savefig(to, dpi=150)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{to} can't be written: {error}", fix="name a .png or .svg file."
        ) from error
