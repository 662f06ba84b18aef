"""Choose what a job's curve shows: the loss or, of a job that learns from rewards, the reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cloudft.types import Metric


@dataclass(frozen=True)
class CurveMeasure:
    """What a curve shows: its `title`, and the `label` of its axis with the unit."""

    title: str
    label: str
    is_reward: bool = False

    def value_of(self, point: Metric) -> float | None:
        """Return what the curve shows at a point; None if the point has no such value."""
        return point.reward if self.is_reward else point.loss


LOSS = CurveMeasure("Loss", "loss (nats per token)")
PAIR_LOSS = CurveMeasure("Loss", "loss (mean of the pairs)")
POLICY_LOSS = CurveMeasure("Loss", "policy loss")
"""Of a job that learns from rewards: weighted by advantages, it is no cross-entropy."""
REWARD = CurveMeasure("Reward", "mean reward", is_reward=True)


def choose_measure(points: Sequence[Metric]) -> CurveMeasure:
    """Return what the curve of these points shows.

    Of a job that learns from rewards not the loss: it is about 0 however much the job has learned.
    """
    if any(point.reward is not None for point in points):
        return REWARD
    return PAIR_LOSS if any(point.reward_margin is not None for point in points) else LOSS
