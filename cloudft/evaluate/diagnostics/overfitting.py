"""Diagnose overfitting: validation loss that rises while training loss keeps falling."""

from __future__ import annotations

from collections.abc import Sequence

from cloudft.evaluate.diagnostics.diagnostic import Diagnostic, choose_level
from cloudft.jobs.curve_measure import choose_measure
from cloudft.storage.artifacts import combine_validation
from cloudft.types import Metric

WARNING_RISE, BAD_RISE = 0.05, 0.20
"""Rises of the validation loss above its minimum, as a share of it."""


def diagnose_overfitting(points: Sequence[Metric]) -> Diagnostic | None:
    """Compare the last validation loss with the lowest; None with fewer than two validations.

    A temporary rise between the two is not overfitting. None for a job that learns from rewards,
    whose validations are no losses.
    """
    validation = combine_validation(points)
    if len(validation) < 2 or choose_measure(points).is_reward:
        return None
    best, last = min(validation, key=lambda p: p.loss), validation[-1]
    rise = last.loss / best.loss - 1 if best.loss > 0 else 0.0
    train_loss = _mean_train_loss(points, last.epoch)
    numbers = {
        "bestEpoch": best.epoch + 1,
        "bestStep": best.step,
        "bestLoss": best.loss,
        "lastEpoch": last.epoch + 1,
        "lastLoss": last.loss,
        "rise": rise,
        "trainLossAtBest": _mean_train_loss(points, best.epoch),
        "trainLossAtEnd": train_loss,
    }
    level = choose_level(rise, warning=WARNING_RISE, bad=BAD_RISE)
    if best is last or level == "good":
        return Diagnostic(
            "good",
            f"No overfitting: validation loss ended at {last.loss:.3f}; its minimum was"
            f" {best.loss:.3f} (epoch {best.epoch + 1}).",
            numbers,
        )
    training = "" if train_loss is None else f", while training loss fell to {train_loss:.3f}"
    return Diagnostic(
        level,
        f"Overfitting after epoch {best.epoch + 1}: validation loss was lowest there"
        f" ({best.loss:.3f}) and rose by {rise:.0%} to {last.loss:.3f} in epoch {last.epoch + 1}"
        f"{training}. Train for {best.epoch + 1} epoch(s). A local job keeps the weights with the"
        " lowest loss; Bedrock keeps the last ones.",
        numbers,
    )


def _mean_train_loss(points: Sequence[Metric], epoch: int) -> float | None:
    """Return the mean training loss of an epoch's steps."""
    losses = [p.loss for p in points if p.split == "train" and p.epoch == epoch]
    return sum(losses) / len(losses) if losses else None
