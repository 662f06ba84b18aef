"""Figures of rewards in groups, and the sentence that they amount to. Pure.

A group is the answers to one prompt. Group-relative policy optimization learns from the differences
of rewards inside a group alone: a group of equal rewards teaches nothing. Source for the two
bounds: Bedrock user guide, "Reinforcement fine-tuning", 2026-11: a baseline of 0 needs supervised
fine-tuning first, one above 95 % needs none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

FULL_SHARE = 0.95
FEW_GROUPS = 0.2
"""Below this share of groups with a spread, most of each step is wasted."""
EQUAL = 1e-9
"""Rewards that differ by less are equal."""
HIGH_CORRELATION = 0.5
MIN_CORRELATED = 16
"""Answers in groups with a spread from which a correlation is more than chance."""
MAX_CUT_SHARE = 0.1
Verdict = Literal["no-groups", "no-reward", "no-spread", "full", "few-groups", "ready"]
HOPELESS: frozenset[Verdict] = frozenset({"no-groups", "no-reward", "no-spread"})
"""Verdicts with which training can't learn."""


@dataclass(frozen=True)
class GradedAnswer:
    """One answer's reward and length (in tokens, or in characters where those are not known)."""

    reward: float
    length: int
    is_cut: bool = False


@dataclass(frozen=True)
class RewardGroup:
    """The graded answers to one prompt, and where the prompt is."""

    file: str
    line: int
    answers: tuple[GradedAnswer, ...]

    @property
    def rewards(self) -> list[float]:
        """Return the rewards of the answers."""
        return [answer.reward for answer in self.answers]

    @property
    def is_equal(self) -> bool:
        """Return whether all rewards are the same."""
        return max(self.rewards) - min(self.rewards) <= EQUAL


@dataclass(frozen=True)
class RewardFigures:
    """What rewards are like. Shares are of answers; `spread` is the mean deviation in a group.

    `groups` counts the prompts with two answers or more, `equal_groups` those of equal rewards.
    `full_reward` is what counts as full: 1, or the highest reward where one is above it.
    `length_correlation` is Spearman's, of rewards and lengths inside groups; None where too few
    answers differ.
    """

    prompts: int
    answers: int
    mean: float
    lowest: float
    highest: float
    zero_share: float
    full_share: float
    full_reward: float
    groups: int
    equal_groups: int
    spread: float
    cut_share: float
    length_correlation: float | None


def summarize_rewards(groups: Sequence[RewardGroup]) -> RewardFigures:
    """Return the figures of at least one answer."""
    import numpy as np

    answers = [answer for group in groups for answer in group.answers]
    rewards = np.array([answer.reward for answer in answers])
    several = [group for group in groups if len(group.answers) > 1]
    full = max(1.0, float(rewards.max()))
    deviations = [float(np.std(group.rewards)) for group in several]
    return RewardFigures(
        prompts=len(groups),
        answers=len(answers),
        mean=float(rewards.mean()),
        lowest=float(rewards.min()),
        highest=float(rewards.max()),
        zero_share=float((rewards <= EQUAL).mean()),
        full_share=float((rewards >= full - EQUAL).mean()),
        full_reward=full,
        groups=len(several),
        equal_groups=sum(group.is_equal for group in several),
        spread=float(np.mean(deviations)) if deviations else 0.0,
        cut_share=sum(answer.is_cut for answer in answers) / len(answers),
        length_correlation=correlate_length(several),
    )


def correlate_length(groups: Sequence[RewardGroup]) -> float | None:
    """Return Spearman's correlation of reward and length inside groups, pooled.

    Ranks are those in the answer's own group, since it is against the group that an answer is
    rewarded. Groups in which either is equal say nothing. None for fewer than MIN_CORRELATED
    answers.
    """
    import numpy as np
    from scipy.stats import rankdata

    rewards: list[float] = []
    lengths: list[float] = []
    for group in groups:
        sizes = [answer.length for answer in group.answers]
        if group.is_equal or min(sizes) == max(sizes):
            continue
        for ranks, pooled in ((group.rewards, rewards), (sizes, lengths)):
            ranked = rankdata(np.round(np.array(ranks, float), 9))
            pooled += ((ranked - ranked.mean()) / len(ranked)).tolist()
    if len(rewards) < MIN_CORRELATED:
        return None
    return float(np.corrcoef(rewards, lengths)[0, 1])


def judge_rewards(figures: RewardFigures) -> tuple[Verdict, str]:
    """Return whether reinforcement can work with these rewards, and a sentence that says so."""
    if figures.zero_share == 1:
        few = f"0 of {figures.answers} answers get any reward"
        return "no-reward", f"{few}: fine-tune first, on labels or by a stronger model's answers"
    if figures.groups == 0:
        what = "each prompt has one answer, so there is nothing to compare it with"
        return "no-groups", f"{what}: reinforcement needs two answers a prompt or more"
    if figures.full_share >= FULL_SHARE:
        share = f"{100 * figures.full_share:.0f} %"
        return "full", f"{share} of the answers get the full reward already: not needed"
    differing = figures.groups - figures.equal_groups
    if differing == 0:
        return "no-spread", "every group's rewards are equal: nothing to learn"
    some = f"{differing} of {figures.groups} prompts have answers with different rewards"
    if differing < FEW_GROUPS * figures.groups:
        return "few-groups", f"only {some}: most of each training step would teach nothing"
    return "ready", f"{some}: there is something to learn"


def warn_of_rewards(figures: RewardFigures) -> list[tuple[str, str]]:
    """Return (message, remedy) for what would mislead the training."""
    warnings = []
    correlation = figures.length_correlation
    if correlation is not None and abs(correlation) >= HIGH_CORRELATION:
        which = "longer" if correlation > 0 else "shorter"
        warnings.append(
            (
                f"{which} answers get the higher rewards (Spearman {correlation:+.2f} inside"
                " groups): a model learns the length, the first sign of reward hacking",
                "read some answers of both kinds; let the grader judge the content alone.",
            )
        )
    if figures.cut_share > MAX_CUT_SHARE:
        share = f"{100 * figures.cut_share:.0f} %"
        warnings.append(
            (
                f"{share} of the answers are cut at the limit of tokens",
                "raise --max-new-tokens (inferenceMaxTokens in the job), or ask for less.",
            )
        )
    if figures.lowest < 0 and figures.highest <= EQUAL:
        warnings.append(
            (
                "no reward is above 0: `no reward` here means one of 0 or less",
                "let a right answer have a reward above 0.",
            )
        )
    return warnings
