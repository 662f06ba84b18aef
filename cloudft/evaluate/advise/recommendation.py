"""Recommend prompting, retrieval, fine-tuning, continued pre-training or more data.

Pure functions of measurements. Fine-tuning is recommended only where it measured better than every
method without training: the 95 % interval of the difference, record by record, lies above zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cloudft.evaluate.metrics.significance import ALPHA, PairedDifference
from cloudft.evaluate.rewards.figures import RewardFigures, judge_rewards

Advice = Literal[
    "prompt", "retrieve", "fine-tune", "reinforce", "continue pre-training", "more data first"
]
GOOD_SCORE = 0.7
"""A score from which a method without training is good enough to start with."""
FEW_RECORDS = 200
"""Fewer training records than this are seldom enough."""
MAX_STALE_SHARE = 0.1
"""From this share of answers that changed since the training data was written, facts change."""
MAX_NOISE_SHARE = 0.1
"""From this share of contradicting answers, the labels have to be fixed first."""
MIN_CORPUS_GAIN = 0.03
"""The smallest fall of bits per byte, as a share, for which a corpus is worth training on."""
SMALL_CORPUS_CHARACTERS = 200_000


@dataclass(frozen=True)
class MethodResult:
    """One method: its mean score (0 to 1), each record's score, and the cost of a request.

    `prompt_tokens` counts input tokens, estimated from characters. `seconds` is the time of a
    request within a batch, None when all answers were cached.
    """

    name: str
    score: float
    scores: Sequence[float]
    prompt_tokens: float
    answer_tokens: float
    seconds: float | None


@dataclass(frozen=True)
class DataFacts:
    """Properties of the data that do not depend on a model.

    `stale` is the share of held-out questions that the training data answers differently; `noise`
    is the share of training records whose question has another answer elsewhere in it.
    """

    train_records: int
    noise: float
    stale: float


@dataclass(frozen=True)
class Recommendation:
    """The advice, and its reasons as sentences."""

    advice: Advice
    reasons: tuple[str, ...]


def recommend(
    methods: Mapping[str, MethodResult],
    facts: DataFacts,
    differences: Mapping[str, PairedDifference],
    rewards: RewardFigures | None = None,
) -> Recommendation:
    """Return the advice for labeled data.

    `methods` has `zero-shot` and `few-shot` and, where measured, `retrieval` and `fine-tuned`.
    `differences` compares `fine-tuned` and `retrieval` with the best prompt, and with
    `fine-tuned/retrieval` the two with each other. `rewards` are a grader's, of the base model's
    answers.
    """
    prompts = [methods[name] for name in ("zero-shot", "few-shot") if name in methods]
    prompt = max(prompts, key=lambda method: method.score)
    reasons = [_describe(method) for method in methods.values()]
    # In this order: changing facts and contradictions make every score of a tuned model misleading.
    advice = (
        _advise_retrieval(methods, facts, differences, prompt, reasons)
        or _advise_cleaning(facts, prompt, reasons)
        or _advise_tuning(facts, differences, prompt, reasons)
        or _advise_reinforcement(rewards, prompt, reasons)
        or _advise_prompting(facts, prompt, reasons)
    )
    return Recommendation(advice, tuple(reasons))


def _advise_retrieval(
    methods: Mapping[str, MethodResult],
    facts: DataFacts,
    differences: Mapping[str, PairedDifference],
    prompt: MethodResult,
    reasons: list[str],
) -> Advice | None:
    if facts.stale >= MAX_STALE_SHARE:
        reasons.append(
            f"the training data answers {facts.stale:.0%} of the held-out questions differently:"
            " the answers change over time, and a tuned model would give outdated ones"
        )
    retrieval = methods.get("retrieval")
    beats_prompt = _is_above_zero(differences.get("retrieval"))
    if retrieval and beats_prompt and not _is_above_zero(differences.get("fine-tuned/retrieval")):
        reasons.append(
            f"retrieval beats prompting ({retrieval.score:.2f} against {prompt.score:.2f})"
        )
        return "retrieve"
    if facts.stale >= MAX_STALE_SHARE and prompt.score < GOOD_SCORE:
        reasons.append("the answers have to be looked up for each request, tuned model or not")
        return "retrieve"
    return None


def _advise_cleaning(facts: DataFacts, prompt: MethodResult, reasons: list[str]) -> Advice | None:
    if facts.noise < MAX_NOISE_SHARE:
        return None
    reasons.append(
        f"{facts.noise:.0%} of the training records contradict another record: fix them first"
        " (`cloudft data stats` lists them)"
    )
    return "more data first" if prompt.score < GOOD_SCORE else None


def _advise_tuning(
    facts: DataFacts,
    differences: Mapping[str, PairedDifference],
    prompt: MethodResult,
    reasons: list[str],
) -> Advice | None:
    gain = differences.get("fine-tuned")
    if gain is None or not _is_above_zero(gain) or facts.stale >= MAX_STALE_SHARE:
        return None
    assert gain.interval is not None
    low, high = gain.interval
    reasons.append(
        f"tuning is better than the best prompt ({prompt.name}) by {gain.delta:+.2f}"
        f" (95 % interval {low:+.2f} to {high:+.2f})"
    )
    return "fine-tune"


def _advise_reinforcement(
    rewards: RewardFigures | None, prompt: MethodResult, reasons: list[str]
) -> Advice | None:
    """Return `reinforce` where most groups of answers have different rewards.

    Tuning on labels has measured no better: that is decided before.
    """
    if rewards is None:
        return None
    verdict, sentence = judge_rewards(rewards)
    reasons.append(f"by the grader, {sentence}")
    differing = rewards.groups - rewards.equal_groups
    if verdict != "ready" or 2 * differing <= rewards.groups or prompt.score >= GOOD_SCORE:
        return None
    reasons.append(
        "tuning on labels is not better than a prompt, and the grader tells the model's own answers"
        " apart: they are what reinforcement learns from"
    )
    return "reinforce"


def _advise_prompting(facts: DataFacts, prompt: MethodResult, reasons: list[str]) -> Advice:
    if prompt.score >= GOOD_SCORE:
        reasons.append(f"{prompt.name} is good ({prompt.score:.2f}) and tuning is not better")
        return "prompt"
    if facts.train_records < FEW_RECORDS:
        reasons.append(
            f"no method is good, and {facts.train_records} training records are too few to judge"
            " fine-tuning"
        )
        return "more data first"
    reasons.append(
        f"no method is good, and tuning on {facts.train_records} records is not better than"
        f" {prompt.name}: improve the prompt, or use a larger model, before paying for training"
    )
    return "prompt"


def recommend_for_corpus(
    base_bits: float, tuned_bits: float, difference: PairedDifference, characters: int
) -> Recommendation:
    """Return the advice for unlabeled text.

    The arguments are bits per byte of held-out text before and after training, their difference
    document by document, and the size of the training text.
    """
    fall = 1 - tuned_bits / base_bits
    figures = (
        f"held-out text takes {base_bits:.3f} bits per byte with the base model and"
        f" {tuned_bits:.3f} after a short training on {characters:,} characters ({-fall:+.1%})"
    )
    interval = difference.interval
    if interval is not None and interval[1] < 0 and fall >= MIN_CORPUS_GAIN:
        reason = "the corpus teaches the model its language"
        return Recommendation("continue pre-training", (figures, reason))
    if characters < SMALL_CORPUS_CHARACTERS:
        reason = "the gain is not significant, and the corpus is small"
        return Recommendation("more data first", (figures, reason))
    reason = "the model already knows this language: use retrieval from the documents instead"
    return Recommendation("retrieve", (figures, reason))


def _is_above_zero(difference: PairedDifference | None) -> bool:
    """Return whether a difference is more than chance, by its interval and by its test."""
    if difference is None or difference.interval is None:
        return False
    return difference.interval[0] > 0 and difference.p_value < ALPHA


def _describe(method: MethodResult) -> str:
    seconds = f" and {method.seconds:.2f} s" if method.seconds is not None else ""
    tokens = f"{method.prompt_tokens:.0f} + {method.answer_tokens:.0f} tokens"
    return f"{method.name}: {method.score:.2f}, {tokens}{seconds} per request"


def break_even_requests(training: float, cheapest: float, tuned: float) -> float | None:
    """Return how many requests pay `training` back when one costs `tuned` instead of `cheapest`.

    All in one unit, USD or seconds. None when requests to the tuned model are not cheaper.
    """
    saved = cheapest - tuned
    return training / saved if saved > 0 else None
