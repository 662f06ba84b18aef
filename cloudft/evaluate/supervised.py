"""A fine-tuned model and its base, by their answers to the same records."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cloudft.backends.base import Continuation, Decoding, Likelihood
from cloudft.evaluate.ask import BASE, TUNED, VARIANTS, Models, Said
from cloudft.evaluate.held_out import HeldOut, Item
from cloudft.evaluate.resampling import by_record, corpus_statistics, f1_statistics, ratio
from cloudft.evaluate.scores import METRIC, confusion, label_of, score_record, totals
from cloudft.evaluate.slices import slices
from cloudft.evaluate.statistics import Paired, paired, paired_interval, verdict
from cloudft.evaluate.tasks import Task

SHORTEST, LONGEST = 16, 1024
"""Tokens that an answer gets, at least and at most, where the job does not say."""
CHARACTERS_PER_TOKEN = 2
"""Fewer than any text has on average, so that no good answer is cut off."""


def decoding_for(references: Sequence[str], wanted: int | None) -> Decoding:
    """Greedy, with room for the longest reference."""
    longest = max(map(len, references), default=0)
    room = min(LONGEST, max(SHORTEST, math.ceil(longest / CHARACTERS_PER_TOKEN) + 8))
    return Decoding(max_new_tokens=wanted or room)


def ask_all(
    models: Models, items: Sequence[Item], decoding: Decoding
) -> tuple[dict[str, list[Said]], dict[str, list[Likelihood]]]:
    """Answers, and likelihoods of the references where the models tell them, by variant."""
    prompts = [item.prompt for item in items]
    wanted = [Continuation(item.prompt, item.reference) for item in items]
    answers, likely = {}, {}
    for variant in VARIANTS:
        answers[variant] = models.answers("answers", prompts, variant, decoding)
        if models.scores:
            likely[variant] = models.likelihoods("likelihood of the references", wanted, variant)
    return answers, likely


def judged(
    task: Task,
    held: HeldOut,
    answers: Mapping[str, Sequence[Said]],
    likely: Mapping[str, Sequence[Likelihood]],
) -> dict[str, Any]:
    """The part of an evaluation that follows from the answers (see evaluation.py's contract)."""
    references = [item.reference for item in held.items]
    scored = {
        name: [score_record(task, r, a.text) for r, a in zip(references, said, strict=True)]
        for name, said in answers.items()
    }
    points = {name: [score for score, _ in found] for name, found in scored.items()}
    metrics = {
        name: _metrics(task, references, said, likely.get(name)) for name, said in answers.items()
    }
    metric = METRIC[task.name]
    difference = paired(points[BASE], points[TUNED])
    labels = [label_of(r, task.labels) if task.labels else None for r in references]
    deltas = _deltas(task, references, answers, metrics, likely)
    return {
        "task": task.name,
        "n": len(references),
        "metric": metric,
        **metrics,
        "delta": deltas,
        "significance": significance(difference, metric, metrics, deltas[metric]),
        "labels": list(task.labels) or None,
        "confusion": _confusions(task, references, answers) if task.labels else None,
        "slices": slices(labels, [len(i.shown) for i in held.items], points[BASE], points[TUNED]),
        "records": list(_records(held, answers, scored, likely)),
    }


def significance(
    difference: Paired,
    metric: str,
    metrics: Mapping[str, Mapping[str, float | None]],
    delta: Mapping[str, float | None],
    *,
    lower_is_better: bool = False,
) -> dict[str, Any]:
    """The test of the headline metric, in numbers and in a sentence.

    The test is over the records' own scores; `delta` is the metric's, with its interval.
    """
    base, tuned = metrics[BASE][metric], metrics[TUNED][metric]
    assert base is not None and tuned is not None
    low, high = delta["low"], delta["high"]
    bounds = None if low is None or high is None else (low, high)
    word, sentence = verdict(
        difference, metric, base, tuned, lower_is_better=lower_is_better, bounds=bounds
    )
    return {
        "test": difference.test,
        "pValue": difference.p_value,
        "effect": {"name": difference.effect_name, "value": difference.effect},
        "fixed": difference.fixed,
        "broken": difference.broken,
        "verdict": word,
        "sentence": sentence,
    }


def _metrics(
    task: Task,
    references: Sequence[str],
    said: Sequence[Said],
    likely: Sequence[Likelihood] | None,
) -> dict[str, float]:
    cut = [answer.finish_reason == "length" for answer in said]
    found = totals(task, references, [answer.text for answer in said], cut=cut)
    found["answerTokens"] = sum(answer.tokens for answer in said) / len(said)
    if likely:
        found["referenceLoss"] = reference_loss(likely)
    return found


def reference_loss(likely: Sequence[Likelihood]) -> float:
    """Mean negative log-likelihood of the references' tokens, in nats a token."""
    tokens = sum(one.tokens for one in likely)
    return -math.fsum(one.log_likelihood for one in likely) / max(1, tokens)


def _deltas(
    task: Task,
    references: Sequence[str],
    answers: Mapping[str, Sequence[Said]],
    metrics: Mapping[str, Mapping[str, float]],
    likely: Mapping[str, Sequence[Likelihood]],
) -> dict[str, dict[str, float | None]]:
    """Tuned minus base of each metric; with an interval, but for shares of the form.

    95 % bootstrap over records, the same resample for both.
    """
    found: dict[str, dict[str, float | None]] = {}
    for name in metrics[BASE]:
        value = metrics[TUNED][name] - metrics[BASE][name]
        found[name] = {"value": value, "low": None, "high": None}
    statistics = {
        name: _statistics(task, references, answers[name], likely.get(name)) for name in VARIANTS
    }
    for name, base in statistics[BASE].items():
        low, high = paired_interval(base, statistics[TUNED][name], len(references))
        found[name] |= {"low": low, "high": high}
    return found


def _statistics(
    task: Task,
    references: Sequence[str],
    said: Sequence[Said],
    likely: Sequence[Likelihood] | None,
) -> dict[str, Callable[[Any], float]]:
    """The metrics that can be had again for other choices of records, as functions of those."""
    texts = [answer.text for answer in said]
    found = {name: ratio(*sums) for name, sums in by_record(task, references, texts).items()}
    if task.name == "classification":
        found |= f1_statistics(task.labels, references, texts)
    if task.name == "text":
        found |= corpus_statistics(references, texts)
    if likely:
        found["referenceLoss"] = ratio(
            [-one.log_likelihood for one in likely], [float(one.tokens) for one in likely]
        )
    return found


def _confusions(
    task: Task, references: Sequence[str], answers: Mapping[str, Sequence[Said]]
) -> dict[str, Any]:
    both = {
        name: confusion(task.labels, references, [answer.text for answer in said])
        for name, said in answers.items()
    }
    return {
        "labels": both[BASE]["labels"],
        **{name: found["matrix"] for name, found in both.items()},
    }


def _records(
    held: HeldOut,
    answers: Mapping[str, Sequence[Said]],
    scored: Mapping[str, Sequence[tuple[float, bool | None]]],
    likely: Mapping[str, Sequence[Likelihood]],
) -> Iterator[dict[str, Any]]:
    for place, item in enumerate(held.items):
        record = {
            "index": place,
            "key": item.key,
            "file": item.file,
            "line": item.line,
            "prompt": item.shown,
            "reference": item.reference,
        }
        for name, said in answers.items():
            answer, (score, correct) = said[place], scored[name][place]
            one = likely[name][place] if name in likely else None
            record[name] = {
                "text": answer.text,
                "score": score,
                "correct": correct,
                "tokens": answer.tokens,
                "finishReason": answer.finish_reason,
                "logLikelihood": one.log_likelihood if one else None,
                "referenceTokens": one.tokens if one else None,
            }
        yield record
