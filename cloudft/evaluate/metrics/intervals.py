"""Compute 95 % confidence intervals: of shares, of differences of paired shares, of other metrics.

Shares have intervals made for them. The bootstrap of a share is too narrow near 0 and 1 and has no
width at all where every record is right; a paired difference has the same fault.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Indices = NDArray[np.int64]

Statistic = Callable[["Indices"], float]
"""A metric as a function of record indices, so that a resample can be scored."""
Interval = tuple[float, float]
RESAMPLES = 10_000
CHUNK_SIZE = 2_000_000
"""Random numbers drawn at once: about 16 MB."""
Z = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""


def is_share(*scores: Sequence[float]) -> bool:
    """Return whether all scores are 0 or 1, so that their mean is a share of the records."""
    return all(value in (0, 1) for values in scores for value in values)


def wilson_interval(hits: int, count: int) -> Interval:
    """Return the score interval of a share (Wilson 1927), of at least one record."""
    from scipy.stats import binomtest

    interval = binomtest(hits, count).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def paired_share_interval(fixed: int, broken: int, count: int) -> Interval:
    """Return the score interval of the difference of two shares of the same records.

    It holds the differences that a score test would not reject (Tango 1998, "Equivalence test and
    confidence interval for the difference in proportions for the paired-sample design", Statistics
    in Medicine 17:891-908); recommended by Fagerland, Lydersen and Laake 2014, "Recommended tests
    and confidence intervals for paired binomial proportions". `fixed` of `count` records are right
    in the second model alone, `broken` in the first alone.
    """
    return -_upper_bound(broken, fixed, count), _upper_bound(fixed, broken, count)


def _upper_bound(fixed: int, broken: int, count: int) -> float:
    """Return where Tango's score statistic, negative above the difference, falls to -Z."""
    from scipy.optimize import brentq

    def excess(difference: float) -> float:
        """Return by how much the squared statistic's numerator is above Z squared variances."""
        # The maximum likelihood estimate of the share of broken records, given the difference.
        linear = (2 * count - fixed + broken) * difference - fixed - broken
        constant = -broken * difference * (1 - difference)
        root = math.sqrt(max(0.0, linear**2 - 8 * count * constant))
        share = (root - linear) / (4 * count)
        variance = count * (2 * share + difference * (1 - difference))
        return (fixed - broken - count * difference) ** 2 - Z**2 * variance

    observed = (fixed - broken) / count
    # Not from the difference itself: without any change the statistic is 0 there as well.
    start = observed + 1e-9
    if start >= 1 or excess(start) >= 0:
        return min(1.0, observed)
    return float(brentq(excess, start, 1.0, xtol=1e-12))


def mean_interval(scores: Sequence[float], *, seed: int = 7) -> Interval | None:
    """Return the interval of a mean score: Wilson's for a share, else the bootstrap's."""
    import numpy as np

    if is_share(scores):
        return wilson_interval(int(sum(scores)), len(scores))
    return bootstrap_mean_interval(np.asarray(scores, float), seed=seed)


def paired_mean_interval(
    base: Sequence[float], tuned: Sequence[float], *, seed: int = 7
) -> Interval | None:
    """Return the interval of the mean of tuned minus base: Tango's for shares, else bootstrap."""
    import numpy as np

    a, b = np.asarray(base, float), np.asarray(tuned, float)
    if is_share(base, tuned):
        return paired_share_interval(int((b > a).sum()), int((b < a).sum()), len(a))
    return bootstrap_mean_interval(b - a, seed=seed)


def bootstrap_mean_interval(values: Floats, *, seed: int = 7) -> Interval | None:
    """Return the percentile bootstrap interval of a mean (Efron 1979). See `_percentiles`."""
    import numpy as np

    n = len(values)
    random, rows, means = np.random.default_rng(seed), max(1, CHUNK_SIZE // n), []
    for start in range(0, RESAMPLES if n > 1 else 0, rows):
        indices = random.integers(0, n, (min(rows, RESAMPLES - start), n))
        means.append(values[indices].mean(axis=1))
    return _percentiles(np.concatenate(means), float(values.mean())) if means else None


def bootstrap_interval(statistic: Statistic, n: int, *, seed: int = 7) -> Interval | None:
    """Return the percentile bootstrap interval of a statistic of n records. See `_percentiles`."""
    import numpy as np

    if n < 2:
        return None
    random = np.random.default_rng(seed)
    values = np.array([statistic(random.integers(0, n, n)) for _ in range(RESAMPLES)])
    return _percentiles(values, statistic(np.arange(n)))


def bootstrap_difference_interval(
    base: Statistic, tuned: Statistic, n: int, *, seed: int = 7
) -> Interval | None:
    """Return the interval of tuned minus base, with the same resamples for both."""
    return bootstrap_interval(lambda indices: tuned(indices) - base(indices), n, seed=seed)


def _percentiles(values: Floats, figure: float) -> Interval | None:
    """Return the central 95 % of resampled values, widened to hold the figure itself.

    None where the resamples do not differ: they know nothing of how sure the figure is. A resample
    has fewer distinct records than the data, so a metric that is not a mean may be off there.
    """
    import numpy as np

    low, high = (float(x) for x in np.quantile(values, (0.025, 0.975)))
    if not (math.isfinite(low) and math.isfinite(high)) or high - low <= 1e-12 * max(1, abs(low)):
        return None
    return min(low, figure), max(high, figure)
