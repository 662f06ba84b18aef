"""Forgetting: what the tuned model has lost of what its base knew."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cloudft.evaluate.diagnostics.diagnostic import Diagnostic, Level
from cloudft.evaluate.metrics.significance import bootstrap_difference_interval, compare_paired
from cloudft.inference import Likelihood

WARNING_RISE, BAD_RISE = 0.03, 0.10
"""A rise of the bits a byte of general text takes, as a share: told, and bad."""
WARNING_QUESTIONS_FALL = 0.10
"""A fall of the share of general questions answered right that is told, if a test tells it too."""
SUGGESTED_SHARES = ((0.03, 0.05), (0.10, 0.1), (0.25, 0.2), (math.inf, 0.3))
"""The share of general data that is suggested for a rise up to so much."""


def diagnose_forgetting(
    before: Sequence[Likelihood],
    after: Sequence[Likelihood],
    sizes: Sequence[int],
    questions_before: Sequence[bool],
    questions_after: Sequence[bool],
    *,
    mixed_share: float = 0.0,
) -> Diagnostic:
    """General text, `sizes` its bytes, and general questions, before tuning and after.

    Mixing general data in (replay) is what holds forgetting back; how much is a rule of thumb, for
    a few per cent do much already (Ibrahim et al. 2024, "Simple and Scalable Strategies to
    Continually Pre-train Large Language Models": 5 % for a weak shift of the data, up to 50 %).
    """
    base, tuned = _bits_per_byte(before, sizes), _bits_per_byte(after, sizes)
    rise = tuned / base - 1
    low, high = bootstrap_difference_interval(
        _build_statistic(before, sizes), _build_statistic(after, sizes), len(sizes)
    )
    answers = compare_paired(
        [float(x) for x in questions_before], [float(x) for x in questions_after]
    )
    right = [sum(x) / len(x) for x in (questions_before, questions_after)]
    worse = low > 0
    lost = answers.delta <= -WARNING_QUESTIONS_FALL and answers.p_value < 0.05
    level: Level = "good"
    if (worse and rise >= BAD_RISE) or (lost and answers.delta <= -2 * WARNING_QUESTIONS_FALL):
        level = "bad"
    elif (worse and rise >= WARNING_RISE) or lost:
        level = "warning"
    share = next(share for limit, share in SUGGESTED_SHARES if rise <= limit)
    told = (
        f"general text takes {tuned:.3f} bits a byte, {base:.3f} before ({rise:+.1%}, 95 % interval"
        f" {low / base:+.1%} to {high / base:+.1%}); {right[1]:.0%} of {len(questions_after)}"
        f" general questions are right, {right[0]:.0%} before"
    )
    sentence = {
        "good": f"Nothing much forgotten: {told}.",
        "warning": f"Some of the general is forgotten: {told}.",
        "bad": f"Much of the general is forgotten: {told}.",
    }[level]
    suggested = max(share, mixed_share + 0.1) if level != "good" else None
    if suggested is not None:
        sentence += (
            f" Mix general data in: `data: {{mix: [{{path: ..., share: {suggested:.2g}}}]}}`"
            f" ({mixed_share:.0%} now), or train for less long, or at a lower rate."
        )
    return Diagnostic(
        level,
        sentence,
        {
            "bitsPerByteBefore": base,
            "bitsPerByteAfter": tuned,
            "rise": rise,
            "riseLow": low / base,
            "riseHigh": high / base,
            "questions": len(questions_before),
            "questionsBefore": right[0],
            "questionsAfter": right[1],
            "mixedShare": mixed_share,
            "suggestedShare": suggested,
        },
    )


def _bits_per_byte(found: Sequence[Likelihood], sizes: Sequence[int]) -> float:
    return -math.fsum(one.log_likelihood for one in found) / math.log(2) / sum(sizes)


def _build_statistic(found: Sequence[Likelihood], sizes: Sequence[int]):  # type: ignore[no-untyped-def]
    import numpy as np

    bits = np.array([-one.log_likelihood / math.log(2) for one in found])
    size = np.array(sizes, float)
    return lambda places: float(bits[places].sum() / size[places].sum())
