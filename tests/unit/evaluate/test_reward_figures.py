"""What rewards say about reinforcement: shares, spread, length, and the sentence."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from scipy.stats import spearmanr

from cloudft.evaluate.rewards.figures import (
    HOPELESS,
    GradedAnswer,
    RewardGroup,
    correlate_length,
    judge_rewards,
    summarize_rewards,
    warn_of_rewards,
)


def group(rewards: Sequence[float], lengths: Sequence[int] | None = None) -> RewardGroup:
    sizes = lengths or range(1, len(rewards) + 1)
    answers = (GradedAnswer(r, n) for r, n in zip(rewards, sizes, strict=True))
    return RewardGroup("train.jsonl", 1, tuple(answers))


@pytest.mark.parametrize(
    ("rewards", "verdict", "words"),
    [
        ([[0, 0], [0, 0]], "no-reward", "0 of 4 answers get any reward: fine-tune first"),
        ([[0], [0]], "no-reward", "0 of 2 answers"),
        ([[-1, -1], [-1, 0]], "no-reward", "0 of 4 answers"),
        ([[0.5, 0.5], [0, 0]], "no-spread", "every group's rewards are equal: nothing to learn"),
        ([[0, 1e-12], [1, 1]], "no-spread", "equal"),
        ([[1], [0]], "no-groups", "two answers a prompt or more"),
        ([[1, 1]] * 19 + [[1, 0]], "full", "98 % of the answers get the full reward already"),
        ([[1, 1]], "full", "not needed"),
        ([[1, 0]] + [[0, 0]] * 9, "few-groups", "only 1 of 10 prompts"),
        ([[1, 0], [0, 0]], "ready", "1 of 2 prompts"),
        ([[3, 3], [5, 5], [4, 5]], "ready", "1 of 3 prompts"),
    ],
)
def test_the_sentence_says_whether_there_is_something_to_learn(
    rewards: list[list[float]], verdict: str, words: str
) -> None:
    found, sentence = judge_rewards(summarize_rewards([group(one) for one in rewards]))
    assert found == verdict and words in sentence
    assert (found in HOPELESS) == (verdict in ("no-reward", "no-spread", "no-groups"))


def test_figures_are_those_of_the_definition() -> None:
    figures = summarize_rewards([group([0, 1, 1, 0]), group([0.5, 0.5]), group([0.25])])
    assert (figures.prompts, figures.answers) == (3, 7)
    assert figures.mean == pytest.approx(3.25 / 7)
    assert figures.zero_share == pytest.approx(2 / 7) == figures.full_share
    assert (figures.groups, figures.equal_groups) == (2, 1)
    assert figures.spread == pytest.approx(0.25)  # the mean of 0.5 and 0, population deviations


def test_the_correlation_with_length_is_spearmans_inside_groups() -> None:
    generator = random.Random(7)
    lengths = generator.sample(range(1000), 40)
    rewards = [round(length + generator.gauss(0, 300)) for length in lengths]
    one = correlate_length([group(rewards, lengths)])
    assert one == pytest.approx(spearmanr(rewards, lengths).statistic)
    # A prompt whose answers are long and good as a whole is not what is measured.
    groups = [
        group([10 * n, 10 * n + 1, 10 * n + 2, 10 * n + 3], [100 * n + 9 - i for i in range(4)])
        for n in range(8)
    ]
    assert correlate_length(groups) == pytest.approx(-1)
    assert correlate_length(groups[:3]) is None  # too few answers
    assert correlate_length([group([1.0] * 20)]) is None  # equal rewards say nothing


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([GradedAnswer(n, n) for n in range(20)], "longer answers get the higher rewards"),
        ([GradedAnswer(-n + 30, n) for n in range(20)], "shorter answers"),
        ([GradedAnswer(n % 2, 5, is_cut=n < 3) for n in range(20)], "15 % of the answers are cut"),
        ([GradedAnswer(-n % 2 - 1, 5) for n in range(20)], "no reward is above 0"),
    ],
)
def test_what_would_mislead_the_training_is_a_warning(answers: Any, words: str) -> None:
    group_of_all = RewardGroup("train.jsonl", 1, tuple(answers))
    [(message, fix)] = warn_of_rewards(summarize_rewards([group_of_all]))
    assert words in message and fix
