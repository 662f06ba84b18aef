"""What people's judgements come to: who wins, how surely, and whether the judges agree."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from cloudft.errors import UsageError

CHOICES = ("a", "b", "tie", "bad")
"""The first is better, the second is better, they are alike, both are bad."""


def summarize_judgments(judgments: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Of choices by reviewer and record: counts, win rate and agreement.

    The win rate is the second side's share of the records where one side won, with its 95 % Wilson
    interval (Wilson 1927); agreement is Krippendorff's alpha for nominal data (Krippendorff 2011),
    None while no record has two judgements.
    """
    choices = [c for by_record in judgments.values() for c in by_record.values()]
    counts = {choice: Counter(choices)[choice] for choice in CHOICES}
    won, lost = counts["b"], counts["a"]
    low, high = _wilson_interval(won, won + lost)
    return {
        "judgements": len(choices),
        "reviewers": {name: len(found) for name, found in judgments.items()},
        "counts": counts,
        "winRate": {
            "value": won / (won + lost) if won + lost else None,
            "low": low,
            "high": high,
            "decided": won + lost,
        },
        "agreement": {"name": "Krippendorff's alpha", "value": krippendorff_alpha(judgments)},
    }


def _wilson_interval(won: int, decided: int) -> tuple[float | None, float | None]:
    if not decided:
        return None, None
    try:
        from scipy.stats import binomtest
    except ImportError as error:
        raise UsageError(
            "the tally needs scipy, which is not installed", fix="pip install 'cloudft[evaluate]'"
        ) from error
    interval = binomtest(won, decided).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def krippendorff_alpha(judgments: Mapping[str, Mapping[str, str]]) -> float | None:
    """Krippendorff's alpha: 1 is full agreement, 0 is what chance gives."""
    import krippendorff
    import numpy as np

    records = sorted({key for found in judgments.values() for key in found})
    if not any(sum(key in found for found in judgments.values()) > 1 for key in records):
        return None
    table = np.array(
        [
            [CHOICES.index(found[key]) if key in found else math.nan for key in records]
            for found in judgments.values()
        ]
    )
    several = table[:, (~np.isnan(table)).sum(axis=0) > 1]
    if len(np.unique(several[~np.isnan(several)])) < 2:
        return 1.0  # the formula has no variance to work with: all said the same
    return float(krippendorff.alpha(reliability_data=table, level_of_measurement="nominal"))
