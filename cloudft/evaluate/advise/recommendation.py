"""From measurements to a word: prompt, retrieve, fine-tune, continue pre-training, or more data.

Pure. Fine-tuning is named only where it measured better than everything that needs no training: the
95 % interval of the difference, record by record, lies above zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cloudft.evaluate.metrics.significance import PairedDifference

Advice = Literal["prompt", "retrieve", "fine-tune", "continue pre-training", "more data first"]
GOOD_SCORE = 0.7
"""A score from which an answer that needs no training is good enough to begin with."""
FEW_RECORDS = 200
"""Fewer training records than this seldom teach what they are to teach."""
MAX_STALE_SHARE = 0.1
"""From this share of answers that have changed since training data was made, facts are fresh."""
MAX_NOISE_SHARE = 0.1
"""From this share of contradicting answers on, the labels are the first thing to mend."""
MIN_CORPUS_GAIN = 0.03
"""The least fall of bits per byte, as a share, for which a corpus is worth training on."""


@dataclass(frozen=True)
class MethodResult:
    """One method: its mean score (0 to 1), each record's, and what a request takes.

    `prompt_tokens` counts what is read, estimated from characters; `seconds` is the time of a
    request among others of a batch, None when the answers were known from before.
    """

    name: str
    score: float
    scores: Sequence[float]
    prompt_tokens: float
    answer_tokens: float
    seconds: float | None


@dataclass(frozen=True)
class DataFacts:
    """What is known of the data, whatever the models do.

    `stale` is the share of held-out questions that training data answers differently; `noise` the
    share of training records whose question has another answer elsewhere in it.
    """

    train_records: int
    noise: float
    stale: float


@dataclass(frozen=True)
class Recommendation:
    """The advice, and why, in sentences."""

    advice: Advice
    reasons: tuple[str, ...]


def recommend(
    methods: Mapping[str, MethodResult],
    facts: DataFacts,
    differences: Mapping[str, PairedDifference],
) -> Recommendation:
    """The advice for labelled data.

    `methods` has `zero-shot`, `few-shot`, and where they were measured `retrieval` and
    `fine-tuned`. `compared` holds `fine-tuned` and `retrieval` against the best prompt, and
    `fine-tuned/retrieval`: the one against the other.
    """
    prompts = [methods[name] for name in ("zero-shot", "few-shot") if name in methods]
    prompt = max(prompts, key=lambda m: m.score)
    tuned, found = methods.get("fine-tuned"), methods.get("retrieval")
    reasons = [_describe(method) for method in methods.values()]
    if facts.stale >= MAX_STALE_SHARE:
        reasons.append(
            f"{facts.stale:.0%} of the held-out questions are answered otherwise in the training"
            " data: the answers change, and a tuned model would give the old ones"
        )
    if (
        found
        and _is_above_zero(differences.get("retrieval"))
        and not _is_above_zero(differences.get("fine-tuned/retrieval"))
    ):
        reasons.append(
            f"looking facts up beats prompting ({found.score:.2f} against {prompt.score:.2f})"
        )
        return Recommendation("retrieve", tuple(reasons))
    if facts.stale >= MAX_STALE_SHARE and prompt.score < GOOD_SCORE:
        reasons.append("what the answers are has to be looked up each time, whatever is tuned")
        return Recommendation("retrieve", tuple(reasons))
    if facts.noise >= MAX_NOISE_SHARE:
        reasons.append(
            f"{facts.noise:.0%} of the training records contradict another one: mend them first"
            " (`cloudft data stats` names them)"
        )
        if prompt.score < GOOD_SCORE:
            return Recommendation("more data first", tuple(reasons))
    if tuned and facts.stale < MAX_STALE_SHARE and _is_above_zero(differences.get("fine-tuned")):
        reasons.append(
            f"tuning is better than the best prompt ({prompt.name}) by"
            f" {differences['fine-tuned'].delta:+.2f} (95 % interval {differences['fine-tuned'].low:+.2f}"
            f" to {differences['fine-tuned'].high:+.2f})"
        )
        return Recommendation("fine-tune", tuple(reasons))
    if prompt.score >= GOOD_SCORE:
        reasons.append(f"{prompt.name} is good ({prompt.score:.2f}) and tuning is not better")
        return Recommendation("prompt", tuple(reasons))
    if facts.train_records < FEW_RECORDS:
        reasons.append(
            f"no method is good, and {facts.train_records} training records are few: tuning has not"
            " had enough to learn from"
        )
        return Recommendation("more data first", tuple(reasons))
    reasons.append(
        f"no method is good, and tuning on {facts.train_records} records is not better than"
        f" {prompt.name}: work on the prompt, or take a larger model, before paying for training"
    )
    return Recommendation("prompt", tuple(reasons))


def recommend_for_corpus(
    base_bits: float, tuned_bits: float, difference: PairedDifference, characters: int
) -> Recommendation:
    """The advice for unlabelled text: bits per byte of held-out text before and after training."""
    fall = 1 - tuned_bits / base_bits
    told = (
        f"held-out text takes {base_bits:.3f} bits a byte with the base model and {tuned_bits:.3f}"
        f" after a short training on {characters:,} characters ({-fall:+.1%})"
    )
    if difference.high < 0 and fall >= MIN_CORPUS_GAIN:
        return Recommendation(
            "continue pre-training", (told, "the corpus teaches the model its language")
        )
    if characters < 200_000:
        why = "the gain is too small to tell, and the corpus is small"
        return Recommendation("more data first", (told, why))
    why = "the model knows this language already: let it look facts up in the documents instead"
    return Recommendation("retrieve", (told, why))


def _is_above_zero(difference: PairedDifference | None) -> bool:
    return difference is not None and difference.low > 0


def _describe(method: MethodResult) -> str:
    took = f" and {method.seconds:.2f} s" if method.seconds is not None else ""
    tokens = f"{method.prompt_tokens:.0f} + {method.answer_tokens:.0f} tokens"
    return f"{method.name}: {method.score:.2f}, {tokens}{took} a request"


def break_even_requests(training: float, cheapest: float, tuned: float) -> float | None:
    """How many requests pay `training` back, when one costs `tuned` instead of `cheapest`.

    All in one unit, USD or seconds. None when the tuned model is not cheaper to ask.
    """
    saved = cheapest - tuned
    return training / saved if saved > 0 else None
