"""How much better an answer is than the others to its prompt."""

from __future__ import annotations

import numpy as np

EPSILON = 1e-4
"""Added to the standard deviation, as TRL's GRPOTrainer does: equal rewards divide by it."""


def compute_advantages(rewards: np.ndarray, scale_rewards: str) -> np.ndarray:
    """Return the advantages of rewards [prompts, answers to each], of the same shape.

    Each is the reward's distance from its prompt's mean, divided by the standard deviation of the
    prompt's rewards (`group`), of all (`batch`), or by nothing (`none`): TRL's `scale_rewards`.
    """
    rewards = rewards.astype(np.float64)
    centered: np.ndarray = rewards - rewards.mean(axis=1, keepdims=True)
    if scale_rewards == "none":
        return centered
    if scale_rewards == "batch":
        deviation = np.full((len(rewards), 1), rewards.std(ddof=1))
    else:
        deviation = rewards.std(axis=1, ddof=1, keepdims=True)
    scaled: np.ndarray = centered / (deviation + EPSILON)
    return scaled


def dead_groups(rewards: np.ndarray) -> np.ndarray:
    """Return which prompts' answers all got the same reward [prompts]: they teach nothing."""
    equal: np.ndarray = (rewards == rewards[:, :1]).all(axis=1)
    return equal


def correlate_with_length(rewards: np.ndarray, lengths: np.ndarray) -> float | None:
    """Return the correlation of reward with length inside the groups; None where one is constant.

    Both are [prompts, answers]. Inside the groups, because prompts differ in what they take.
    """
    x = (rewards - rewards.mean(axis=1, keepdims=True)).ravel()
    y = (lengths - lengths.mean(axis=1, keepdims=True)).ravel()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > 0 else None
