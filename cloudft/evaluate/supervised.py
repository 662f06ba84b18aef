"""A fine-tuned model and its base, by their answers to the same records."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cloudft.evaluate.held_out import EvalExample, HeldOutData
from cloudft.evaluate.inference.cached_inference import (
    BASE,
    TUNED,
    VARIANTS,
    CachedInference,
    ModelAnswer,
)
from cloudft.evaluate.metrics.resampled_metrics import (
    build_additive_metrics,
    build_corpus_statistics,
    build_f1_statistics,
    build_ratio_statistic,
)
from cloudft.evaluate.metrics.scores import (
    HEADLINE_METRIC,
    aggregate_metrics,
    confusion_matrix,
    extract_label,
    score_record,
)
from cloudft.evaluate.metrics.significance import (
    PairedDifference,
    bootstrap_difference_interval,
    compare_paired,
    describe_difference,
)
from cloudft.evaluate.metrics.slices import compute_slices
from cloudft.evaluate.metrics.tasks import Task
from cloudft.inference import GenerationConfig, Likelihood, ScoringRequest

MIN_NEW_TOKENS, MAX_NEW_TOKENS = 16, 1024
"""Tokens that an answer gets, at least and at most, where the job does not say."""
MIN_CHARACTERS_PER_TOKEN = 2
"""Fewer than any text has on average, so that no good answer is cut off."""


def default_generation_config(
    references: Sequence[str], max_new_tokens: int | None
) -> GenerationConfig:
    """Greedy, with room for the longest reference."""
    longest = max(map(len, references), default=0)
    room = min(
        MAX_NEW_TOKENS, max(MIN_NEW_TOKENS, math.ceil(longest / MIN_CHARACTERS_PER_TOKEN) + 8)
    )
    return GenerationConfig(max_new_tokens=max_new_tokens or room)


def generate_all_answers(
    models: CachedInference, items: Sequence[EvalExample], decoding: GenerationConfig
) -> tuple[dict[str, list[ModelAnswer]], dict[str, list[Likelihood]]]:
    """Answers, and likelihoods of the references where the models tell them, by variant."""
    prompts = [item.prompt for item in items]
    wanted = [ScoringRequest(item.prompt, item.reference) for item in items]
    answers, likely = {}, {}
    for variant in VARIANTS:
        answers[variant] = models.generate_answers("answers", prompts, variant, decoding)
        if models.has_likelihoods:
            likely[variant] = models.score_continuations(
                "likelihood of the references", wanted, variant
            )
    return answers, likely


def evaluate_supervised(
    task: Task,
    held: HeldOutData,
    answers: Mapping[str, Sequence[ModelAnswer]],
    likely: Mapping[str, Sequence[Likelihood]],
) -> dict[str, Any]:
    """The part of an evaluation that follows from the answers (see evaluation.py's contract)."""
    references = [item.reference for item in held.examples]
    scored = {
        name: [score_record(task, r, a.text) for r, a in zip(references, said, strict=True)]
        for name, said in answers.items()
    }
    points = {name: [score for score, _ in found] for name, found in scored.items()}
    metrics = {
        name: _compute_metrics(task, references, said, likely.get(name))
        for name, said in answers.items()
    }
    metric = HEADLINE_METRIC[task.name]
    difference = compare_paired(points[BASE], points[TUNED])
    labels = [extract_label(r, task.labels) if task.labels else None for r in references]
    deltas = _compute_deltas(task, references, answers, metrics, likely)
    return {
        "task": task.name,
        "n": len(references),
        "metric": metric,
        **metrics,
        "delta": deltas,
        "significance": significance_to_json(difference, metric, metrics, deltas[metric]),
        "labels": list(task.labels) or None,
        "confusion": _confusion_matrices(task, references, answers) if task.labels else None,
        "slices": compute_slices(
            labels, [len(i.input_text) for i in held.examples], points[BASE], points[TUNED]
        ),
        "records": list(_records_to_json(held, answers, scored, likely)),
    }


def significance_to_json(
    difference: PairedDifference,
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
    word, sentence = describe_difference(
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


def _compute_metrics(
    task: Task,
    references: Sequence[str],
    said: Sequence[ModelAnswer],
    likely: Sequence[Likelihood] | None,
) -> dict[str, float]:
    cut = [answer.finish_reason == "length" for answer in said]
    found = aggregate_metrics(task, references, [answer.text for answer in said], truncated=cut)
    found["answerTokens"] = sum(answer.tokens for answer in said) / len(said)
    if likely:
        found["referenceLoss"] = mean_reference_loss(likely)
    return found


def mean_reference_loss(likely: Sequence[Likelihood]) -> float:
    """Mean negative log-likelihood of the references' tokens, in nats a token."""
    tokens = sum(one.tokens for one in likely)
    return -math.fsum(one.log_likelihood for one in likely) / max(1, tokens)


def _compute_deltas(
    task: Task,
    references: Sequence[str],
    answers: Mapping[str, Sequence[ModelAnswer]],
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
        name: _build_statistics(task, references, answers[name], likely.get(name))
        for name in VARIANTS
    }
    for name, base in statistics[BASE].items():
        low, high = bootstrap_difference_interval(base, statistics[TUNED][name], len(references))
        found[name] |= {"low": low, "high": high}
    return found


def _build_statistics(
    task: Task,
    references: Sequence[str],
    said: Sequence[ModelAnswer],
    likely: Sequence[Likelihood] | None,
) -> dict[str, Callable[[Any], float]]:
    """The metrics that can be had again for other choices of records, as functions of those."""
    texts = [answer.text for answer in said]
    found = {
        name: build_ratio_statistic(*sums)
        for name, sums in build_additive_metrics(task, references, texts).items()
    }
    if task.name == "classification":
        found |= build_f1_statistics(task.labels, references, texts)
    if task.name == "text":
        found |= build_corpus_statistics(references, texts)
    if likely:
        found["referenceLoss"] = build_ratio_statistic(
            [-one.log_likelihood for one in likely], [float(one.tokens) for one in likely]
        )
    return found


def _confusion_matrices(
    task: Task, references: Sequence[str], answers: Mapping[str, Sequence[ModelAnswer]]
) -> dict[str, Any]:
    both = {
        name: confusion_matrix(task.labels, references, [answer.text for answer in said])
        for name, said in answers.items()
    }
    return {
        "labels": both[BASE]["labels"],
        **{name: found["matrix"] for name, found in both.items()},
    }


def _records_to_json(
    held: HeldOutData,
    answers: Mapping[str, Sequence[ModelAnswer]],
    scored: Mapping[str, Sequence[tuple[float, bool | None]]],
    likely: Mapping[str, Sequence[Likelihood]],
) -> Iterator[dict[str, Any]]:
    for place, item in enumerate(held.examples):
        record = {
            "index": place,
            "key": item.key,
            "file": item.file,
            "line": item.line,
            "prompt": item.input_text,
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
