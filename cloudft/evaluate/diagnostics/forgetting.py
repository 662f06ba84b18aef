"""Diagnose forgetting: general knowledge that the tuned model lost compared to its base."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cloudft.evaluate.diagnostics.diagnostic import Diagnostic, Level
from cloudft.evaluate.metrics.intervals import (
    Interval,
    Statistic,
    bootstrap_difference_interval,
)
from cloudft.evaluate.metrics.significance import ALPHA, compare_paired
from cloudft.inference import Likelihood

WARNING_RISE, BAD_RISE = 0.03, 0.10
"""Rises of the bits per byte of general text, as a share."""
WARNING_QUESTIONS_FALL = 0.10
"""A fall of the share of correct general questions, if it is statistically significant."""
SUGGESTED_SHARES = ((0.03, 0.05), (0.10, 0.1), (0.25, 0.2), (math.inf, 0.3))
"""The share of general data that is suggested for a rise up to each limit."""


@dataclass(frozen=True)
class GeneralResults:
    """One model's log-likelihoods of general texts, and which general questions it answers."""

    likelihoods: Sequence[Likelihood]
    correct: Sequence[bool]


def diagnose_forgetting(
    base: GeneralResults,
    tuned: GeneralResults,
    sizes: Sequence[int],
    *,
    mixed_share: float = 0.0,
) -> Diagnostic:
    """Compare general text and questions before and after tuning.

    `sizes` are the texts' sizes in bytes, `mixed_share` is the share of general data in the
    training data. Mixing general data in (replay) reduces forgetting. The suggested share is a rule
    of thumb, because a few per cent already have a large effect (Ibrahim et al. 2024, "Simple and
    Scalable Strategies to Continually Pre-train Large Language Models": 5 % for a weak shift of the
    data, up to 50 %).
    """
    before, after = (_bits_per_byte(x.likelihoods, sizes) for x in (base, tuned))
    rise = after / before - 1
    limits = _find_rise_limits(base, tuned, sizes)
    answers = compare_paired([float(x) for x in base.correct], [float(x) for x in tuned.correct])
    right_before, right_after = (sum(x.correct) / len(x.correct) for x in (base, tuned))
    lost = -answers.delta if answers.p_value < ALPHA else 0.0
    # A single text has no limits: nothing shows that its rise is chance.
    level = _choose_level(rise if limits is None or limits[0] > 0 else 0.0, lost)
    range_text = f", 95 % interval {limits[0]:+.1%} to {limits[1]:+.1%}" if limits else ""
    figures = (
        f"general text takes {after:.3f} bits per byte, {before:.3f} before tuning ({rise:+.1%}"
        f"{range_text}); {right_after:.0%} of {len(tuned.correct)}"
        f" general questions are correct, {right_before:.0%} before tuning"
    )
    sentence = {
        "good": f"Hardly any forgetting: {figures}.",
        "warning": f"Some general knowledge was lost: {figures}.",
        "bad": f"Much general knowledge was lost: {figures}.",
    }[level]
    suggested = None
    if level != "good":
        suggested = _suggest_share(rise, mixed_share)
        sentence += (
            f" Mix general data in: `data: {{mix: [{{path: ..., share: {suggested:.2g}}}]}}`"
            f" ({mixed_share:.0%} now), train for fewer epochs, or lower the learning rate."
        )
    return Diagnostic(
        level,
        sentence,
        {
            "bitsPerByteBefore": before,
            "bitsPerByteAfter": after,
            "rise": rise,
            "riseLow": limits and limits[0],
            "riseHigh": limits and limits[1],
            "questions": len(base.correct),
            "questionsBefore": right_before,
            "questionsAfter": right_after,
            "mixedShare": mixed_share,
            "suggestedShare": suggested,
        },
    )


def _find_rise_limits(
    base: GeneralResults, tuned: GeneralResults, sizes: Sequence[int]
) -> Interval | None:
    """Return the interval of the rise of bits per byte, as shares of those before tuning."""
    before, after = (_build_statistic(x.likelihoods, sizes) for x in (base, tuned))
    interval = bootstrap_difference_interval(before, after, len(sizes))
    if interval is None:
        return None
    bits = _bits_per_byte(base.likelihoods, sizes)
    return interval[0] / bits, interval[1] / bits


def _suggest_share(rise: float, mixed_share: float) -> float:
    share = next(share for limit, share in SUGGESTED_SHARES if rise <= limit)
    return max(share, mixed_share + 0.1)


def _choose_level(rise: float, lost: float) -> Level:
    """Return the level; `rise` and `lost` are 0 when they are not significant."""
    if rise >= BAD_RISE or lost >= 2 * WARNING_QUESTIONS_FALL:
        return "bad"
    return "warning" if rise >= WARNING_RISE or lost >= WARNING_QUESTIONS_FALL else "good"


def _bits_per_byte(likelihoods: Sequence[Likelihood], sizes: Sequence[int]) -> float:
    return -math.fsum(x.log_likelihood for x in likelihoods) / math.log(2) / sum(sizes)


def _build_statistic(likelihoods: Sequence[Likelihood], sizes: Sequence[int]) -> Statistic:
    import numpy as np

    bits = np.array([-x.log_likelihood / math.log(2) for x in likelihoods])
    size = np.array(sizes, float)
    return lambda indices: float(bits[indices].sum() / size[indices].sum())
