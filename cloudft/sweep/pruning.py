"""Decide whether a running trial is so far behind that it is stopped.

A trial is compared at the same amount of data and at the same share of its run: one with more
epochs has a higher learning rate at the same record than one that is about to end. It is stopped
when its best loss so far is worse than the median of the finished trials in both.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

MIN_OTHERS = 3
"""Finished trials that a median is taken of."""
WARM_UP_SHARE = 0.1
"""Share of a run in which nothing is compared: the learning rate still rises."""
LAST_SHARE = 0.95
"""From here on, stopping saves nothing."""


class Point(NamedTuple):
    """One validation: after so many records, at which share of the whole run, and its loss."""

    records: int
    share: float
    loss: float


def is_behind(
    points: Sequence[Point], others: Sequence[Sequence[Point]], *, min_others: int = MIN_OTHERS
) -> bool:
    """Return whether a run with these validations is behind those that have finished."""
    if not points or not WARM_UP_SHARE <= points[-1].share < LAST_SHARE:
        return False
    last, best = points[-1], min(point.loss for point in points)

    def median_where(is_reached: Callable[[Point], bool]) -> float | None:
        losses = [
            min(reached)
            for curve in others
            if (reached := [point.loss for point in curve if is_reached(point)])
        ]
        return statistics.median(losses) if len(losses) >= min_others else None

    # A little more than the same: the share of a step is a fraction that is rounded.
    medians = (
        median_where(lambda point: point.records <= last.records),
        median_where(lambda point: point.share <= last.share + 1e-9),
    )
    return all(median is not None and best > median for median in medians)
