"""Read a run's curve for what would waste it: no reward, a collapse, a grader that is fooled."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from local_backend.errors import TrainerError

FIRST_STEPS = 3
"""Steps after which a run without any reward is refused."""
WINDOW = 10
"""Steps at the start and at the end of a run that are compared with each other."""
SHORT_WINDOW = 5
COLLAPSED_ENTROPY = 0.01
"""Share of the first entropy under which all answers are alike."""
FALLEN_REWARD = 0.25
"""Share of the first reward that a collapse has lost."""
HACKING_CORRELATION = 0.5
"""Correlation of reward with length inside the groups from which a rise of both is suspicious."""
StepPoint = Mapping[str, float | None]
"""A point of the training curve: `reward`, `deadGroups`, `entropy` and so on, by name."""


def require_reward(points: Sequence[StepPoint], answers_per_step: int) -> None:
    """Raise TrainerError if no answer of the first steps was better than another."""
    first = points[:FIRST_STEPS]
    if len(points) != FIRST_STEPS:  # fewer: too early; more: it was checked
        return
    rewards = {point[name] for point in first for name in ("rewardMin", "rewardMax")}
    if len(rewards) > 1:
        return
    [reward] = rewards
    answers = FIRST_STEPS * answers_per_step
    if reward == 0:
        raise TrainerError(
            f"0 of {answers} answers got any reward: fine-tune first.",
            fix="train on labeled answers (FINE_TUNING) and start from that job (base_model:"
            " job:NAME), or let the grader pay for a part of what is right.",
        )
    raise TrainerError(
        f"All {answers} answers got the same reward ({reward:g}): there is nothing to learn.",
        fix="let the grader tell better answers from worse ones, or take harder prompts.",
    )


@dataclass(frozen=True)
class Change:
    """The means of a value over the first and over the last steps, and how sure they differ."""

    first: float
    last: float
    error: float
    """Standard error of the difference."""

    @property
    def gain(self) -> float:
        """Return last minus first."""
        return self.last - self.first


def compare_ends(points: Sequence[StepPoint], name: str) -> Change | None:
    """Return how a value changed from the first steps to the last; None for a short run."""
    values = [value for point in points if (value := point.get(name)) is not None]
    size = WINDOW if len(values) >= 2 * WINDOW else SHORT_WINDOW
    if len(values) < 2 * size:
        return None
    ends = values[:size], values[-size:]
    means = [sum(end) / size for end in ends]
    variances = [
        sum((value - mean) ** 2 for value in end) / (size - 1)
        for end, mean in zip(ends, means, strict=True)
    ]
    return Change(means[0], means[1], math.sqrt(sum(variances) / size))


def find_end_of_learning(points: Sequence[StepPoint]) -> str | None:
    """Return a sentence if the last steps had nothing to learn from, else None."""
    last = points[-WINDOW:]
    if len(last) < WINDOW or any((point["deadGroups"] or 0.0) < 1 for point in last):
        return None
    reward = sum(point["reward"] or 0.0 for point in last) / WINDOW
    return (
        f"in the last {WINDOW} steps all answers to a prompt got the same reward (mean"
        f" {reward:.3f}): there is nothing more to learn from"
    )


def find_collapse(points: Sequence[StepPoint]) -> str | None:
    """Return a sentence if the policy has become worse than it was, else None."""
    if len(points) < 2 * WINDOW:
        return None
    reward, entropy = compare_ends(points, "reward"), compare_ends(points, "entropy")
    if reward is None or entropy is None:
        return None
    lost = max(3 * reward.error, FALLEN_REWARD * abs(reward.first))
    if reward.gain < 0 and -reward.gain > lost:
        return (
            f"the reward collapsed: its mean over {WINDOW} steps fell from {reward.first:.3f} at"
            f" the start to {reward.last:.3f}"
        )
    if entropy.last < COLLAPSED_ENTROPY * entropy.first and reward.gain <= 2 * reward.error:
        return (
            f"the entropy collapsed from {entropy.first:.3f} to {entropy.last:.4f} nats without a"
            " gain in reward: all answers have become alike"
        )
    return None


def find_reward_hacking(points: Sequence[StepPoint]) -> dict[str, float] | None:
    """Return the figures of a reward that rises with the answers' length; None if it does not."""
    reward, length = compare_ends(points, "reward"), compare_ends(points, "responseLength")
    correlation = compare_ends(points, "lengthCorrelation")
    if reward is None or length is None or correlation is None:
        return None
    rises = reward.gain > 2 * reward.error and length.gain > 2 * length.error
    if not rises or correlation.last < HACKING_CORRELATION:
        return None
    return {
        "rewardBefore": reward.first,
        "rewardAfter": reward.last,
        "lengthBefore": length.first,
        "lengthAfter": length.last,
        "correlation": correlation.last,
    }


def describe_reward_hacking(found: Mapping[str, float]) -> str:
    """Return the figures as a sentence."""
    return (
        f"the reward rose from {found['rewardBefore']:.3f} to {found['rewardAfter']:.3f} with the"
        f" answers' length ({found['lengthBefore']:.0f} to {found['lengthAfter']:.0f} tokens;"
        f" correlation {found['correlation']:.2f} inside the groups). This is a sign of reward"
        " hacking: read some answers, and let the grader pay for what is right, not for length"
    )
