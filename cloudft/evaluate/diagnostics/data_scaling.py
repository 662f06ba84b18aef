"""Diagnose too little data: extrapolate the loss with twice the data from runs on parts of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cloudft.evaluate.diagnostics.diagnostic import Diagnostic, Level

if TYPE_CHECKING:
    from cloudft.evaluate.metrics.intervals import Floats

DATA_SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)
MIN_USEFUL_FALL = 0.05
"""A fall of the loss, as a share, from which twice the data is worth collecting."""


def diagnose_data_scaling(points: Sequence[tuple[int, float]]) -> Diagnostic:
    """Return what more data would gain, extrapolated from runs on nested parts of the data.

    `points` are (records, held-out loss).

    Loss falls as a power of the number of records, down to a floor: a + b n^-c (Kaplan et al. 2020,
    Hestness et al. 2017). Three or four points do not determine the floor; it is bounded by the
    lowest loss.
    """
    ordered = sorted(points)
    numbers: dict[str, object] = {
        "points": [{"records": count, "loss": loss} for count, loss in ordered]
    }
    if len(ordered) < 3:
        return Diagnostic("warning", "A learning curve needs at least three runs.", numbers)
    count, loss = ordered[-1]
    predicted = predict_loss(ordered, 2 * count)
    fall = 1 - predicted / loss
    numbers |= {"lossAtTwice": predicted, "fall": fall}
    figures = (
        f"with {', '.join(str(n) for n, _ in ordered)} records the held-out loss is"
        f" {', '.join(f'{value:.3f}' for _, value in ordered)}"
    )
    # Never `bad`: the data does no harm, there could only be more of it.
    level: Level = "good" if fall < MIN_USEFUL_FALL else "warning"
    if level == "good":
        sentence = (
            f"More data of this kind will hardly help: {figures}; with twice as many it would be"
            f" about {predicted:.3f}."
        )
    else:
        sentence = (
            f"More data would help: {figures}. With twice as many ({2 * count}) it would be about"
            f" {predicted:.3f} ({-fall:.0%})."
        )
    return Diagnostic(level, sentence, numbers)


def predict_loss(points: Sequence[tuple[int, float]], count: float) -> float:
    """Return the loss with `count` records, more than the most of the points.

    `points` are sorted (records, held-out loss), at least three. Never above the last one measured.
    """
    import warnings

    import numpy as np
    from scipy.optimize import OptimizeWarning, curve_fit

    records = np.array([count for count, _ in points], float)
    losses = np.array([loss for _, loss in points])
    scale = records[-1]

    def curve(x: Floats, floor: float, height: float, power: float) -> Floats:
        values: Floats = floor + height * (x / scale) ** -power
        return values

    lowest, last = float(losses.min()), float(losses[-1])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OptimizeWarning)
            best, _ = curve_fit(
                curve,
                records,
                losses,
                p0=(lowest / 2, lowest / 2, 0.5),
                bounds=((0.0, 0.0, 0.0), (max(lowest, 1e-9), np.inf, 2.0)),
                maxfev=5000,
            )
        # The fitted change is added to the measured loss: the fit need not pass through it.
        predicted = float(np.diff(curve(np.array([scale, count]), *best))[0]) + last
    except RuntimeError:  # no convergence: extrapolate a straight line in log(records)
        slope = np.polyfit(np.log(records), losses, 1)[0]
        predicted = float(last + slope * np.log(count / scale))
    return min(last, max(0.0, predicted))
