"""Judge by its loss whether a training learned anything."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

MIN_STEPS = 4
"""Steps below which there is no trend to judge."""
LEAST_FALL = 0.02
"""The share of the first quarter's loss by which the last quarter's is lower, at least."""


def describe_flat_loss(losses: Sequence[float]) -> str | None:
    """Return a sentence for a training whose loss did not fall; None for any other.

    `losses` are the mean loss of each step, in nats a token, in order.
    """
    if len(losses) < MIN_STEPS:
        return None
    quarter = len(losses) // 4
    first, last = fmean(losses[:quarter]), fmean(losses[-quarter:])
    if last <= first * (1 - LEAST_FALL):
        return None
    return (
        f"it learned nothing: the training loss is {first:.2f} in the first quarter of the steps"
        f" and {last:.2f} in the last; raise learningRate or epochCount"
    )
