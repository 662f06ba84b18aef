"""Summarize people's judgments: win rate with interval, and agreement between reviewers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import TypedDict

from cloudft.errors import UsageError
from cloudft.evaluate.metrics.intervals import wilson_interval

CHOICES = ("a", "b", "tie", "bad")
"""The first is better, the second is better, they are equally good, both are bad."""

Judgments = Mapping[str, Mapping[str, str]]
"""Choices by reviewer and by record key."""


class WinRate(TypedDict):
    """The second side's share of the decided records, with its 95 % interval.

    A record is decided when more of its reviewers prefer one side than the other.
    """

    value: float | None
    low: float | None
    high: float | None
    decided: int


class Agreement(TypedDict):
    """A measure of agreement; `value` is None while no record has two judgments."""

    name: str
    value: float | None


class JudgmentSummary(TypedDict):
    """Numbers of judgments and of judged records, and what follows from the records."""

    judgements: int
    reviewers: dict[str, int]
    counts: dict[str, int]
    judgedRecords: int
    winRate: WinRate
    agreement: Agreement


def summarize_judgments(judgments: Judgments) -> JudgmentSummary:
    """Return counts of judgments, win rate and agreement.

    The unit of the win rate is the record: that another reviewer says the same of the same records
    is no evidence about more of them. A record goes to the side that more of its reviewers prefer,
    and to neither where as many prefer each. The win rate is the second side's share of the records
    that went to a side, with its 95 % Wilson interval (Wilson 1927). Agreement is Krippendorff's
    alpha for nominal data (Krippendorff 2011).
    """
    choices = [choice for by_record in judgments.values() for choice in by_record.values()]
    counts = {choice: Counter(choices)[choice] for choice in CHOICES}
    margins: Counter[str] = Counter()
    for by_record in judgments.values():
        for key, choice in by_record.items():
            margins[key] += {"a": -1, "b": 1}.get(choice, 0)
    wins = sum(margin > 0 for margin in margins.values())
    decided = sum(margin != 0 for margin in margins.values())
    low, high = _win_rate_interval(wins, decided)
    return {
        "judgements": len(choices),
        "reviewers": {name: len(by_record) for name, by_record in judgments.items()},
        "counts": counts,
        "judgedRecords": len(margins),
        "winRate": {
            "value": wins / decided if decided else None,
            "low": low,
            "high": high,
            "decided": decided,
        },
        "agreement": {"name": "Krippendorff's alpha", "value": krippendorff_alpha(judgments)},
    }


def _win_rate_interval(wins: int, decided: int) -> tuple[float | None, float | None]:
    if not decided:
        return None, None
    try:
        return wilson_interval(wins, decided)
    except ImportError as error:
        raise UsageError(
            "the summary needs scipy, which is not installed",
            fix="pip install 'cloudft[evaluate]'",
        ) from error


def krippendorff_alpha(judgments: Judgments) -> float | None:
    """Return Krippendorff's alpha: 1 is full agreement, 0 is agreement by chance.

    None while no record has two judgments.
    """
    return nominal_alpha(judgments)


def nominal_alpha(values: Judgments) -> float | None:
    """Return Krippendorff's alpha of any nominal values, by person and record.

    None while no record has two values. All equal is full agreement: krippendorff raises there.
    """
    import krippendorff
    import numpy as np

    records = sorted({key for by_record in values.values() for key in by_record})
    if not any(sum(key in by_record for by_record in values.values()) > 1 for key in records):
        return None
    codes = {
        value: number
        for number, value in enumerate(sorted({v for one in values.values() for v in one.values()}))
    }
    table = np.array(
        [
            [codes[by_record[key]] if key in by_record else math.nan for key in records]
            for by_record in values.values()
        ]
    )
    judged_twice = table[:, (~np.isnan(table)).sum(axis=0) > 1]
    # The formula divides by the variance, which is 0 when all choices are equal.
    if len(np.unique(judged_twice[~np.isnan(judged_twice)])) < 2:
        return 1.0
    return float(krippendorff.alpha(reliability_data=table, level_of_measurement="nominal"))
