"""Loss curves as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cloudft.errors import UsageError
from cloudft.types import Metric

FILE_NAME = "loss.png"
"""The name of a job's curves in its folder."""


def save_loss_plot(points: Sequence[Metric], title: str, folder: Path) -> Path | None:
    """Draw a finished job's curves into its folder; None where nothing can be drawn."""
    to = folder / FILE_NAME
    try:
        draw_loss_plot(points, title, to)
    except UsageError:  # no matplotlib, no point, no room: the numbers are there all the same
        return None
    return to


def draw_loss_plot(points: Sequence[Metric], title: str, to: Path) -> None:
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
