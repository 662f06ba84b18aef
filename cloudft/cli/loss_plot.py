"""Draw loss curves as an image file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cloudft.errors import UsageError
from cloudft.jobs.curve_measure import choose_measure
from cloudft.types import Metric

FILE_NAME = "loss.png"
"""Name of the image in a job's folder."""


def save_loss_plot(points: Sequence[Metric], title: str, folder: Path) -> Path | None:
    """Draw a finished job's curves into its folder. Return None when they can't be drawn."""
    to = folder / FILE_NAME
    try:
        draw_loss_plot(points, title, to)
    except UsageError:  # no matplotlib, no points or a full disk: the numbers remain
        return None
    return to


def draw_loss_plot(points: Sequence[Metric], title: str, to: Path) -> None:
    """Draw training and validation loss over steps into `to` (.png, .svg).

    Of a job that learns from rewards, draw the reward instead: its loss says nothing.

    Raise UsageError without matplotlib, without points, or for a file that can't be written.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise UsageError(
            "plots need matplotlib, which is not installed", fix="pip install 'cloudft[plot]'"
        ) from error
    if not points:
        raise UsageError("the loss curve has no points yet", fix="wait for the first step.")
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    curves: dict[str, list[tuple[int, float]]] = {"train": [], "validation": []}
    measure = choose_measure(points)
    for point in points:
        name = point.split
        label = name if point.validation_set is None else f"{name} {point.validation_set}"
        value = measure.value_of(point)
        if value is not None:
            curves.setdefault(label, []).append((point.step, value))
    for label, curve in curves.items():
        style = {"lw": 1.2} if label == "train" else {"lw": 1.2, "marker": "o"}
        if curve:
            axes.plot(*zip(*curve, strict=True), label=label, **style)
    axes.set(title=title, xlabel="step", ylabel=measure.label)
    if not measure.is_reward:
        axes.set_ylim(0, None)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    try:
        figure.savefig(to, dpi=150)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{to} can't be written: {error}", fix="name a .png or .svg file."
        ) from error
