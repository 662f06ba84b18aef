"""Intervals, tests and effects, against what they are by hand and by scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import bootstrap, permutation_test

from cloudft.evaluate.metrics.intervals import bootstrap_difference_interval
from cloudft.evaluate.metrics.significance import (
    compare_paired,
    describe_difference,
    mcnemar_p_value,
)

RANDOM = np.random.default_rng(1)
BASE = RANDOM.random(60)
TUNED = BASE + RANDOM.normal(0.1, 0.2, 60)


def test_rights_and_wrongs_are_tested_by_mcnemar() -> None:
    base, tuned = [0.0] * 12 + [1.0] * 28, [1.0] * 10 + [0.0] * 4 + [1.0] * 26
    found = compare_paired(base, tuned)
    assert (found.fixed, found.broken, found.test) == (10, 2, "McNemar (exact)")
    by_hand = 2 * sum(math.comb(12, k) for k in range(3)) / 2**12
    assert found.p_value == pytest.approx(by_hand, rel=1e-12)
    assert mcnemar_p_value(0, 0) == 1.0
    assert found.effect == pytest.approx(
        2 * math.asin(math.sqrt(36 / 40)) - 2 * math.asin(math.sqrt(28 / 40))
    )


def test_an_interval_is_scipys() -> None:
    found = compare_paired(BASE.tolist(), TUNED.tolist())
    known = bootstrap(
        (TUNED - BASE,), np.mean, method="percentile", n_resamples=10_000, rng=3
    ).confidence_interval
    assert found.interval == pytest.approx((known.low, known.high), abs=0.005)
    interval = bootstrap_difference_interval(
        lambda places: float(BASE[places].mean()), lambda p: float(TUNED[p].mean()), 60
    )
    assert interval == pytest.approx((known.low, known.high), abs=0.005)


@pytest.mark.parametrize("count", [8, 60])
def test_other_scores_are_tested_by_their_signs(count: int) -> None:
    base, tuned = BASE[:count], TUNED[:count]
    found = compare_paired(base.tolist(), tuned.tolist())
    known = permutation_test(
        (tuned, base),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=20_000,
        rng=5,
    )
    assert found.test == "paired permutation"
    assert found.p_value == pytest.approx(known.pvalue, abs=0.01)
    assert found.p_value > 0


def test_records_that_are_few_or_alike_give_no_wonder() -> None:
    one = compare_paired([0.2], [0.7])
    assert one.interval is None and one.p_value == 1.0
    same = compare_paired([0.5] * 20, [0.5] * 20)
    assert (same.delta, same.interval, same.effect) == (0, None, 0)
    assert same.p_value == 1.0
    assert describe_difference(same, "chrf", 0.5, 0.5)[0] == "no difference"


def test_the_verdict_says_which_way_is_better() -> None:
    lower = compare_paired([1.0, 1.1, 1.2, 0.9] * 5, [0.5, 0.6, 0.5, 0.4] * 5, lower_is_better=True)
    word, sentence = describe_difference(lower, "bitsPerByte", 1.05, 0.5, lower_is_better=True)
    assert word == "better" and "0.500 against 1.050" in sentence and "20 records fixed" in sentence
    word, _ = describe_difference(lower, "accuracy", 1.05, 0.5)
    assert word == "worse"
