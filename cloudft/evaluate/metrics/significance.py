"""Test whether a difference is more than chance: paired intervals, tests and effect sizes.

Everything is paired: both models answer the same records. Random draws follow from a seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloudft.evaluate.metrics.intervals import (
    CHUNK_SIZE,
    RESAMPLES,
    Interval,
    is_share,
    paired_mean_interval,
)

if TYPE_CHECKING:
    from cloudft.evaluate.metrics.intervals import Floats

EXACT_TEST_MAX_RECORDS = 13
"""Up to this number of records, all 2^n sign flips are enumerated."""
ALPHA = 0.05
BETTER, WORSE, DIFFERENT, SAME = "better", "worse", "different", "no difference"


@dataclass(frozen=True)
class PairedDifference:
    """The difference tuned minus base, record by record.

    `delta` is the mean difference, `interval` its 95 % interval (None where the records do not show
    how sure it is). `fixed` and `broken` count the records whose score improved and got worse.
    """

    delta: float
    interval: Interval | None
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
    """Return the difference of two models' scores of the same records.

    Binary scores (0 and 1) are tested with McNemar's exact test (McNemar 1947; the discordant
    pairs are binomial with p = 1/2), with Cohen's h as effect size (Cohen 1988, chapter 6). Other
    scores are tested with a sign permutation test (Fisher 1935; Monte Carlo p as in Phipson and
    Smyth 2010, so never 0), with Cohen's d of the differences (d_z). See `paired_mean_interval`.
    """
    import numpy as np

    a, b = np.asarray(base, float), np.asarray(tuned, float)
    difference = b - a
    counts = int((difference > 0).sum()), int((difference < 0).sum())
    fixed, broken = counts[::-1] if lower_is_better else counts
    interval = paired_mean_interval(base, tuned, seed=seed)
    if is_share(base, tuned):
        test, p_value = "McNemar (exact)", mcnemar_p_value(fixed, broken)
        effect_name, effect = "Cohen's h", cohens_h(float(a.mean()), float(b.mean()))
    else:
        test, p_value = "paired permutation", permutation_p_value(difference, seed=seed)
        effect_name, effect = "Cohen's d_z", cohens_dz(difference)
    return PairedDifference(
        float(difference.mean()), interval, test, p_value, effect_name, effect, fixed, broken
    )


def mcnemar_p_value(fixed: int, broken: int) -> float:
    """Return the two-sided exact p-value for these numbers of improved and worsened records."""
    from scipy.stats import binomtest

    if fixed + broken == 0:
        return 1.0
    return float(binomtest(fixed, fixed + broken, 0.5).pvalue)


def permutation_p_value(difference: Floats, *, seed: int = 7) -> float:
    """Return the two-sided p-value of a mean difference under random signs of the differences."""
    import numpy as np

    n, observed = len(difference), abs(float(difference.sum()))
    # Sums of the same numbers in another order differ in the last digits.
    threshold = observed - 1e-12 * max(1.0, observed)
    if n <= EXACT_TEST_MAX_RECORDS:
        flips = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        sums = np.abs((1 - 2 * flips) @ difference)
        return float((sums >= threshold).mean())
    random, hits = np.random.default_rng(seed), 0
    rows = max(1, CHUNK_SIZE // n)
    for start in range(0, RESAMPLES, rows):
        signs = 1 - 2 * random.integers(0, 2, (min(rows, RESAMPLES - start), n), dtype=np.int8)
        hits += int((np.abs(signs @ difference) >= threshold).sum())
    return (hits + 1) / (RESAMPLES + 1)


def cohens_h(base: float, tuned: float) -> float:
    """Return the difference of two proportions on the arcsine scale.

    0.2 is a small effect, 0.5 a medium one, 0.8 a large one.
    """
    return 2 * math.asin(math.sqrt(tuned)) - 2 * math.asin(math.sqrt(base))


def cohens_dz(difference: Floats) -> float:
    """Return the mean difference divided by its standard deviation; 0 without variance."""
    if len(difference) < 2:
        return 0.0
    deviation = float(difference.std(ddof=1))
    return float(difference.mean()) / deviation if deviation > 1e-12 else 0.0


def describe_difference(
    difference: PairedDifference,
    metric: str,
    base: float,
    tuned: float,
    *,
    lower_is_better: bool | None = False,
    interval: Interval | None = None,
) -> tuple[str, str]:
    """Return `better`, `worse` or `no difference`, and a sentence with the numbers behind it.

    Where `lower_is_better` is None, which way is better is not known: a difference is `different`.
    `base` and `tuned` are scores over all records, `interval` that of their difference. They need
    not be the means of the records' scores, which the test compares.
    """
    p = f"p = {difference.p_value:.3f}" if difference.p_value >= 0.001 else "p < 0.001"
    range_text = f" (95 % interval {interval[0]:+.3f} to {interval[1]:+.3f})" if interval else ""
    numbers = f"{metric} {tuned:.3f} against {base:.3f}, {tuned - base:+.3f}{range_text}, {p}"
    verdict, changes = SAME, f"{difference.fixed} records fixed, {difference.broken} broken"
    if lower_is_better is None:
        verdict = SAME if difference.p_value >= ALPHA else DIFFERENT
        changes = f"{difference.fixed} records higher, {difference.broken} lower"
    elif difference.p_value < ALPHA:
        verdict = BETTER if (difference.delta < 0) is lower_is_better else WORSE
    summary = {
        BETTER: "The tuned model is better",
        WORSE: "The tuned model is worse",
        DIFFERENT: "The tuned model differs (whether higher is better is not known)",
        SAME: "No statistically significant difference",
    }[verdict]
    return verdict, f"{summary}: {numbers}; {changes}."
