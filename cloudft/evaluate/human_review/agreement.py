"""Summarize people's judgments: win rate with interval, and agreement between reviewers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import TypedDict

from cloudft.errors import UsageError

CHOICES = ("a", "b", "tie", "bad")
"""The first is better, the second is better, they are equally good, both are bad."""

Judgments = Mapping[str, Mapping[str, str]]
"""Choices by reviewer and by record key."""


class WinRate(TypedDict):
    """The second side's share of the decided records, with its 95 % interval."""

    value: float | None
    low: float | None
    high: float | None
    decided: int


class Agreement(TypedDict):
    """A measure of agreement; `value` is None while no record has two judgments."""

    name: str
    value: float | None


class JudgmentSummary(TypedDict):
    """Numbers of judgments, and what follows from them."""

    judgements: int
    reviewers: dict[str, int]
    counts: dict[str, int]
    winRate: WinRate
    agreement: Agreement


def summarize_judgments(judgments: Judgments) -> JudgmentSummary:
    """Return counts, win rate and agreement.

    The win rate is the second side's share of the records where one side won, with its 95 % Wilson
    interval (Wilson 1927). Agreement is Krippendorff's alpha for nominal data (Krippendorff 2011).
    """
    choices = [choice for by_record in judgments.values() for choice in by_record.values()]
    counts = {choice: Counter(choices)[choice] for choice in CHOICES}
    wins, losses = counts["b"], counts["a"]
    low, high = _wilson_interval(wins, wins + losses)
    return {
        "judgements": len(choices),
        "reviewers": {name: len(by_record) for name, by_record in judgments.items()},
        "counts": counts,
        "winRate": {
            "value": wins / (wins + losses) if wins + losses else None,
            "low": low,
            "high": high,
            "decided": wins + losses,
        },
        "agreement": {"name": "Krippendorff's alpha", "value": krippendorff_alpha(judgments)},
    }


def _wilson_interval(wins: int, decided: int) -> tuple[float | None, float | None]:
    if not decided:
        return None, None
    try:
        from scipy.stats import binomtest
    except ImportError as error:
        raise UsageError(
            "the summary needs scipy, which is not installed",
            fix="pip install 'cloudft[evaluate]'",
        ) from error
    interval = binomtest(wins, decided).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def krippendorff_alpha(judgments: Judgments) -> float | None:
    """Return Krippendorff's alpha: 1 is full agreement, 0 is agreement by chance.

    None while no record has two judgments.
    """
    import krippendorff
    import numpy as np

    records = sorted({key for by_record in judgments.values() for key in by_record})
    if not any(sum(key in by_record for by_record in judgments.values()) > 1 for key in records):
        return None
    table = np.array(
        [
            [CHOICES.index(by_record[key]) if key in by_record else math.nan for key in records]
            for by_record in judgments.values()
        ]
    )
    judged_twice = table[:, (~np.isnan(table)).sum(axis=0) > 1]
    # The formula divides by the variance, which is 0 when all choices are equal.
    if len(np.unique(judged_twice[~np.isnan(judged_twice)])) < 2:
        return 1.0
    return float(krippendorff.alpha(reliability_data=table, level_of_measurement="nominal"))
