"""Is the difference more than chance: paired intervals, tests and effect sizes.

Everything here is paired: the same records, asked of both models. Draws follow from a seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES = 10_000
EXACT_TEST_MAX_RECORDS = 13
"""Records up to which every one of the 2^n sign flips is counted."""
ALPHA = 0.05
CHUNK_SIZE = 2_000_000
"""Numbers drawn at once: some 16 MB."""
BETTER, WORSE, SAME = "better", "worse", "no difference"


@dataclass(frozen=True)
class PairedDifference:
    """Tuned minus base, record by record.

    `delta` is the mean difference, `low` and `high` its 95 % bootstrap interval (NaN for a single
    record). `fixed` and `broken` count the records that got better and worse.
    """

    delta: float
    low: float
    high: float
    test: str
    p_value: float
    effect_name: str
    effect: float
    fixed: int
    broken: int


def compare_paired(
    base: Sequence[float],
    tuned: Sequence[float],
    *,
    seed: int = 7,
    lower_is_better: bool = False,
) -> PairedDifference:
    """The difference of two models' scores of the same records.

    Rights and wrongs (0 and 1) are tested by McNemar's exact test (McNemar 1947; the discordant
    pairs are binomial with 1/2), with Cohen's h as effect (Cohen 1988, chapter 6); other scores by
    a permutation of signs (Fisher 1935; Monte Carlo p as Phipson and Smyth 2010, so never 0), with
    Cohen's d of the differences (d_z). The interval is the percentile bootstrap's (Efron 1979).
    """
    import numpy as np

    a, b = np.asarray(base, float), np.asarray(tuned, float)
    difference = b - a
    gains = int((difference > 0).sum()), int((difference < 0).sum())
    fixed, broken = gains[::-1] if lower_is_better else gains
    low, high = bootstrap_mean_interval(difference, seed=seed)
    if np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all():
        test, p_value = "McNemar (exact)", mcnemar_p_value(fixed, broken)
        effect_name, effect = "Cohen's h", cohens_h(float(a.mean()), float(b.mean()))
    else:
        test, p_value = "paired permutation", permutation_p_value(difference, seed=seed)
        effect_name, effect = "Cohen's d_z", cohens_dz(difference)
    return PairedDifference(
        float(difference.mean()), low, high, test, p_value, effect_name, effect, fixed, broken
    )


def mcnemar_p_value(fixed: int, broken: int) -> float:
    """The two-sided exact p-value of so many records that changed for better and for worse."""
    from scipy.stats import binomtest

    if fixed + broken == 0:
        return 1.0
    return float(binomtest(fixed, fixed + broken, 0.5).pvalue)


def permutation_p_value(difference: NDArray[Any], *, seed: int = 7) -> float:
    """The two-sided p-value of a mean difference when each record's sign were a coin's."""
    import numpy as np

    n, seen = len(difference), abs(float(difference.sum()))
    close = seen - 1e-12 * max(1.0, seen)
    if n <= EXACT_TEST_MAX_RECORDS:
        flips = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        sums = np.abs((1 - 2 * flips) @ difference)
        return float((sums >= close).mean())
    random, hits = np.random.default_rng(seed), 0
    rows = max(1, CHUNK_SIZE // n)
    for at in range(0, RESAMPLES, rows):
        signs = 1 - 2 * random.integers(0, 2, (min(rows, RESAMPLES - at), n), dtype=np.int8)
        hits += int((np.abs(signs @ difference) >= close).sum())
    return (hits + 1) / (RESAMPLES + 1)


def cohens_h(base: float, tuned: float) -> float:
    """The difference of two shares on the arcsine scale; 0.2 small, 0.5 medium, 0.8 large."""
    return 2 * math.asin(math.sqrt(tuned)) - 2 * math.asin(math.sqrt(base))


def cohens_dz(difference: NDArray[Any]) -> float:
    """The mean difference in its own standard deviations; 0 where there is none of either."""
    if len(difference) < 2:
        return 0.0
    spread = float(difference.std(ddof=1))
    return float(difference.mean()) / spread if spread > 1e-12 else 0.0


def bootstrap_mean_interval(values: NDArray[Any], *, seed: int = 7) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of a mean; NaN for a single value."""
    import numpy as np

    n = len(values)
    if n < 2:
        return math.nan, math.nan
    random, rows, means = np.random.default_rng(seed), max(1, CHUNK_SIZE // n), []
    for at in range(0, RESAMPLES, rows):
        places = random.integers(0, n, (min(rows, RESAMPLES - at), n))
        means.append(values[places].mean(axis=1))
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975))
    return float(low), float(high)


def bootstrap_interval(
    statistic: Callable[[NDArray[Any]], float], n: int, *, seed: int = 7, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of a statistic of record numbers; NaN for one."""
    import numpy as np

    if n < 2:
        return math.nan, math.nan
    random = np.random.default_rng(seed)
    drawn = [statistic(random.integers(0, n, n)) for _ in range(resamples)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(low), float(high)


def bootstrap_difference_interval(
    base: Callable[[NDArray[Any]], float],
    tuned: Callable[[NDArray[Any]], float],
    n: int,
    *,
    seed: int = 7,
    resamples: int = RESAMPLES,
) -> tuple[float, float]:
    """The interval of the difference of two statistics, each resample the same for both."""
    return bootstrap_interval(
        lambda places: tuned(places) - base(places), n, seed=seed, resamples=resamples
    )


def describe_difference(
    difference: PairedDifference,
    metric: str,
    base: float,
    tuned: float,
    *,
    lower_is_better: bool = False,
    alpha: float = ALPHA,
    bounds: tuple[float, float] | None = None,
) -> tuple[str, str]:
    """`better`, `worse` or `no difference`, and a sentence with the numbers behind it.

    `base` and `tuned` may be those of all records together (a corpus score), which is not the mean
    of the records' own: then `bounds` is the interval of their difference.
    """
    gain = -difference.delta if lower_is_better else difference.delta
    word = SAME if difference.p_value >= alpha else BETTER if gain > 0 else WORSE
    p = f"p = {difference.p_value:.3f}" if difference.p_value >= 0.001 else "p < 0.001"
    low, high = bounds or (difference.low, difference.high)
    spread = "" if math.isnan(low) else f" (95 % interval {low:+.3f} to {high:+.3f})"
    numbers = f"{metric} {tuned:.3f} against {base:.3f}, {tuned - base:+.3f}{spread}, {p}"
    what = {
        BETTER: "The tuned model is better",
        WORSE: "The tuned model is worse",
        SAME: "No improvement that could be told from chance",
    }[word]
    return word, (
        f"{what}: {numbers}; {difference.fixed} records fixed, {difference.broken} broken."
    )
