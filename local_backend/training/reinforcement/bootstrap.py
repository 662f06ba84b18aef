"""The interval of a mean difference, by resampling prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 2000


def bootstrap_gain(before: Sequence[float], after: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean gain and its 95 % interval; the two are of the same prompts, in order."""
    gains = np.subtract(after, before)
    drawn = np.random.default_rng(0).integers(0, len(gains), (RESAMPLES, len(gains)))
    low, high = np.percentile(gains[drawn].mean(axis=1), [2.5, 97.5])
    return float(gains.mean()), float(low), float(high)
