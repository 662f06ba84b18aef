"""Over-fitting: validation loss that has turned up while training loss goes on falling."""

from __future__ import annotations

from collections.abc import Sequence

from cloudft.evaluate.diagnostics.diagnostic import Diagnostic, Level
from cloudft.types import Metric

WARNING_RISE, BAD_RISE = 0.05, 0.20
"""A rise of validation loss above its lowest, as a share of it, that is told; and that is bad."""


def diagnose_overfitting(points: Sequence[Metric]) -> Diagnostic | None:
    """What the curves tell; None with fewer than two validations.

    The last validation is held against the lowest: a bump between them is no over-fitting.
    """
    validation = sorted((p for p in points if p.split == "validation"), key=lambda p: p.step)
    if len(validation) < 2:
        return None
    best, last = min(validation, key=lambda p: p.loss), validation[-1]
    rise = last.loss / best.loss - 1 if best.loss > 0 else 0.0
    numbers = {
        "bestEpoch": best.epoch + 1,
        "bestStep": best.step,
        "bestLoss": best.loss,
        "lastEpoch": last.epoch + 1,
        "lastLoss": last.loss,
        "rise": rise,
        "trainLossAtBest": _mean_train_loss(points, best.epoch),
        "trainLossAtEnd": _mean_train_loss(points, last.epoch),
    }
    if best is last or rise < WARNING_RISE:
        told = f"validation loss ended at {last.loss:.3f}, its lowest was {best.loss:.3f}"
        return Diagnostic("good", f"No over-fitting: {told} (epoch {best.epoch + 1}).", numbers)
    level: Level = "bad" if rise >= BAD_RISE else "warning"
    trained = numbers["trainLossAtEnd"]
    beside = f", while training loss fell to {trained:.3f}" if trained is not None else ""
    return Diagnostic(
        level,
        f"Over-fitted after epoch {best.epoch + 1}: validation loss was lowest there"
        f" ({best.loss:.3f}) and rose by {rise:.0%} to {last.loss:.3f} in epoch {last.epoch + 1}"
        f"{beside}. Train {best.epoch + 1} epoch(s); a local job has kept the weights of the lowest"
        " loss, Bedrock keeps the last.",
        numbers,
    )


def _mean_train_loss(points: Sequence[Metric], epoch: int) -> float | None:
    """The mean training loss of an epoch's steps."""
    losses = [p.loss for p in points if p.split == "train" and p.epoch == epoch]
    return sum(losses) / len(losses) if losses else None
