"""Too little data: what twice as much of it would buy, from runs on parts of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cloudft.evaluate.diagnostics.diagnostic import Diagnostic, Level

DATA_SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)
MIN_USEFUL_FALL = 0.05
"""A fall of the loss, as a share, for which twice the data is worth its making."""


def diagnose_data_scaling(points: Sequence[tuple[int, float]]) -> Diagnostic:
    """`points` are (records, held-out loss) of runs on nested parts of the data.

    Loss falls as a power of the data, down to a floor: a + b n^-c (Kaplan et al. 2020, Hestness et
    al. 2017). With three or four points the floor is not found; it is bounded by the lowest loss.
    """
    ordered = sorted(points)
    numbers: dict[str, Any] = {"points": [{"records": n, "loss": loss} for n, loss in ordered]}
    if len(ordered) < 3:
        return Diagnostic("warning", "Fewer than three runs tell no learning curve.", numbers)
    n, loss = ordered[-1]
    ahead = _predict_loss_at_twice(ordered)
    fall = 1 - ahead / loss
    numbers |= {"lossAtTwice": ahead, "fall": fall}
    told = (
        f"on {', '.join(str(count) for count, _ in ordered)} records the held-out loss is"
        f" {', '.join(f'{value:.3f}' for _, value in ordered)}"
    )
    if fall < MIN_USEFUL_FALL:
        sentence = f"More data of this kind will hardly help: {told}; twice as much would make it"
        return Diagnostic("good", f"{sentence} about {ahead:.3f}.", numbers)
    level: Level = "bad" if fall >= 3 * MIN_USEFUL_FALL else "warning"
    sentence = f"More data would help: {told}. Twice as much ({2 * n} records) would make it about"
    return Diagnostic(level, f"{sentence} {ahead:.3f} ({-fall:.0%}).", numbers)


def _predict_loss_at_twice(points: Sequence[tuple[int, float]]) -> float:
    """The loss at twice the records. Never above the last one measured."""
    import warnings

    import numpy as np
    from scipy.optimize import OptimizeWarning, curve_fit

    records = np.array([n for n, _ in points], float)
    losses = np.array([loss for _, loss in points])
    scale = records[-1]

    def curve(x: Any, floor: float, height: float, power: float) -> Any:
        return floor + height * (x / scale) ** -power

    lowest = float(losses.min())
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
        ahead = float(curve(2 * scale, *best)) - float(curve(scale, *best)) + float(losses[-1])
    except RuntimeError:
        slope = np.polyfit(np.log(records), losses, 1)[0]
        ahead = float(losses[-1] + slope * np.log(2))
    return min(float(losses[-1]), max(0.0, ahead))
