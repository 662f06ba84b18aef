"""Evaluate a fine-tuned model and its base by their answers to the same records."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence

from cloudft.evaluate.held_out import EvalExample, HeldOutData
from cloudft.evaluate.inference.cached_inference import (
    BASE,
    TUNED,
    UNKNOWN_FINISH,
    VARIANTS,
    CachedInference,
    ModelAnswer,
    Variant,
)
from cloudft.evaluate.metrics.applicability import find_meaningless_metrics
from cloudft.evaluate.metrics.intervals import (
    Interval,
    Statistic,
    bootstrap_difference_interval,
    is_share,
    paired_mean_interval,
)
from cloudft.evaluate.metrics.labels import match_label
from cloudft.evaluate.metrics.metric_labels import metric_label
from cloudft.evaluate.metrics.resampled_metrics import (
    WeightedSums,
    build_additive_metrics,
    build_corpus_statistics,
    build_f1_statistics,
    build_ratio_statistic,
)
from cloudft.evaluate.metrics.scores import (
    HEADLINE_METRIC,
    aggregate_metrics,
    confusion_matrix,
    score_record,
)
from cloudft.evaluate.metrics.significance import (
    PairedDifference,
    compare_paired,
    describe_difference,
)
from cloudft.evaluate.metrics.slices import compute_slices
from cloudft.evaluate.metrics.tasks import Task
from cloudft.evaluate.results import (
    Confusion,
    Delta,
    EvaluatedRecord,
    EvaluationScores,
    OmittedMetric,
    ScoredAnswer,
    Significance,
    make_delta,
    make_record,
)
from cloudft.inference import GenerationConfig, Likelihood

MIN_NEW_TOKENS, MAX_NEW_TOKENS = 16, 1024
"""Limits of the tokens of an answer, where the job file gives none."""
MIN_CHARACTERS_PER_TOKEN = 2
"""Lower than any text's average, so that no correct answer is truncated."""

Answers = Mapping[Variant, Sequence[ModelAnswer]]
Likelihoods = Mapping[Variant, Sequence[Likelihood]]
"""Log-likelihoods of the references; empty when the backend returns none."""


def default_generation_config(
    examples: Sequence[EvalExample], max_new_tokens: int | None
) -> GenerationConfig:
    """Return greedy decoding with enough tokens for the longest reference."""
    longest = max((example.reply_length for example in examples), default=0)
    needed = math.ceil(longest / MIN_CHARACTERS_PER_TOKEN) + 8
    default = min(MAX_NEW_TOKENS, max(MIN_NEW_TOKENS, needed))
    return GenerationConfig(max_new_tokens=max_new_tokens or default)


def generate_all_answers(
    models: CachedInference, examples: Sequence[EvalExample], config: GenerationConfig
) -> tuple[dict[Variant, list[ModelAnswer]], dict[Variant, list[Likelihood]]]:
    """Return both models' answers and, if available, the references' log-likelihoods."""
    prompts = [example.prompt for example in examples]
    requests = [example.scoring_request for example in examples]
    answers: dict[Variant, list[ModelAnswer]] = {}
    likelihoods: dict[Variant, list[Likelihood]] = {}
    for variant in VARIANTS:
        answers[variant] = models.generate_answers("answers", prompts, variant, config)
        if models.has_likelihoods:
            likelihoods[variant] = models.score_continuations(
                "likelihood of the references", requests, variant
            )
    return answers, likelihoods


def evaluate_supervised(
    task: Task, held_out: HeldOutData, answers: Answers, likelihoods: Likelihoods
) -> EvaluationScores:
    """Return the part of an evaluation that follows from the answers (see results.py)."""
    references = [example.reference for example in held_out.examples]
    scored = {
        name: [
            score_record(task, reference, answer.text)
            for reference, answer in zip(references, answers[name], strict=True)
        ]
        for name in VARIANTS
    }
    points = {name: [score for score, _ in scored[name]] for name in VARIANTS}
    omitted = find_meaningless_metrics(task, references) | _find_unknown_metrics(answers)
    metrics = {
        name: _compute_metrics(task, references, answers[name], likelihoods.get(name), omitted)
        for name in VARIANTS
    }
    metric = HEADLINE_METRIC[task.name]
    difference = compare_paired(points[BASE], points[TUNED])
    labels = [match_label(r, task.labels) if task.labels else None for r in references]
    lengths = [len(example.input_text) for example in held_out.examples]
    deltas = _compute_deltas(task, references, answers, metrics, likelihoods)
    return {
        "task": task.name,
        "n": len(references),
        "metric": metric,
        "base": {**metrics[BASE]},
        "tuned": {**metrics[TUNED]},
        "delta": deltas,
        "omitted": [OmittedMetric(metric=name, reason=omitted[name]) for name in omitted],
        "significance": significance_to_json(difference, metric, metrics, deltas[metric]),
        "labels": list(task.labels) or None,
        "confusion": _confusion_matrices(task, references, answers) if task.labels else None,
        "slices": compute_slices(labels, lengths, points[BASE], points[TUNED]),
        "records": list(_records_to_json(held_out, answers, scored, likelihoods)),
    }


def significance_to_json(
    difference: PairedDifference,
    metric: str,
    metrics: Mapping[Variant, Mapping[str, float | None]],
    delta: Delta,
    *,
    lower_is_better: bool = False,
) -> Significance:
    """Return the test of the headline metric, as numbers and as a sentence.

    The test compares the records' own scores; `delta` is the metric's difference over all records,
    with its interval.
    """
    base, tuned = metrics[BASE][metric], metrics[TUNED][metric]
    assert base is not None and tuned is not None
    low, high = delta["low"], delta["high"]
    interval = None if low is None or high is None else (low, high)
    verdict, sentence = describe_difference(
        difference,
        metric_label(metric),
        base,
        tuned,
        lower_is_better=lower_is_better,
        interval=interval,
    )
    return {
        "test": difference.test,
        "pValue": difference.p_value,
        "effect": {"name": difference.effect_name, "value": difference.effect},
        "fixed": difference.fixed,
        "broken": difference.broken,
        "verdict": verdict,
        "sentence": sentence,
    }


def _compute_metrics(
    task: Task,
    references: Sequence[str],
    answers: Sequence[ModelAnswer],
    likelihoods: Sequence[Likelihood] | None,
    omitted: Mapping[str, str],
) -> dict[str, float]:
    truncated = [answer.finish_reason == "length" for answer in answers]
    texts = [answer.text for answer in answers]
    metrics = aggregate_metrics(task, references, texts, truncated=truncated)
    metrics["answerTokens"] = sum(answer.tokens for answer in answers) / len(answers)
    if likelihoods:
        metrics["referenceLoss"] = mean_reference_loss(likelihoods)
    return {name: value for name, value in metrics.items() if name not in omitted}


def score_answers(
    task: Task, held_out: HeldOutData, answers: Sequence[ModelAnswer], names: Collection[str]
) -> dict[str, float | None]:
    """Return the metrics called `names` of another model's answers to the same records."""
    references = [example.reference for example in held_out.examples]
    metrics = _compute_metrics(task, references, answers, None, {})
    return {name: metrics[name] for name in names if name in metrics}


def _find_unknown_metrics(answers: Answers) -> dict[str, str]:
    """Return the metrics that answers of another tool leave unknown, with the reason."""
    every = [answer for name in VARIANTS for answer in answers[name]]
    reasons: dict[str, str] = {}
    if any(answer.text.strip() and not answer.tokens for answer in every):
        reasons["answerTokens"] = "the answers come without their number of tokens"
    if any(answer.finish_reason == UNKNOWN_FINISH for answer in every):
        reasons["cutShare"] = "the answers come without the reason why they ended"
    return reasons


def mean_reference_loss(likelihoods: Sequence[Likelihood]) -> float:
    """Return the mean negative log-likelihood of the references' tokens, in nats per token."""
    tokens = sum(likelihood.tokens for likelihood in likelihoods)
    return -math.fsum(x.log_likelihood for x in likelihoods) / max(1, tokens)


def _compute_deltas(
    task: Task,
    references: Sequence[str],
    answers: Answers,
    metrics: Mapping[Variant, Mapping[str, float]],
    likelihoods: Likelihoods,
) -> dict[str, Delta]:
    """Return tuned minus base of each metric, with an interval except for format metrics."""
    intervals: dict[str, Interval | None] = {}
    base, tuned = (
        build_additive_metrics(task, references, [answer.text for answer in answers[name]])
        for name in VARIANTS
    )
    for name in base:
        intervals[name] = _additive_interval(base[name], tuned[name])
    before, after = (
        _build_statistics(task, references, answers[name], likelihoods.get(name))
        for name in VARIANTS
    )
    for name in before:
        if name in metrics[BASE]:
            intervals[name] = bootstrap_difference_interval(
                before[name], after[name], len(references)
            )
    return {
        name: make_delta(metrics[TUNED][name] - metrics[BASE][name], intervals.get(name))
        for name in metrics[BASE]
    }


def _additive_interval(base: WeightedSums, tuned: WeightedSums) -> Interval | None:
    """Return the interval of tuned minus base: that of shares where each record is 0 or 1."""
    (values, weights), (tuned_values, tuned_weights) = base, tuned
    if is_share(values, tuned_values) and all(w == 1 for w in (*weights, *tuned_weights)):
        return paired_mean_interval(values, tuned_values)
    return bootstrap_difference_interval(
        build_ratio_statistic(*base), build_ratio_statistic(*tuned), len(values)
    )


def _build_statistics(
    task: Task,
    references: Sequence[str],
    answers: Sequence[ModelAnswer],
    likelihoods: Sequence[Likelihood] | None,
) -> dict[str, Statistic]:
    """Return the metrics that are no sums over records, as functions of record indices."""
    texts = [answer.text for answer in answers]
    statistics: dict[str, Statistic] = {}
    if task.name == "classification":
        statistics |= build_f1_statistics(task.labels, references, texts)
    if task.name == "text":
        statistics |= build_corpus_statistics(references, texts)
    if likelihoods:
        statistics["referenceLoss"] = build_ratio_statistic(
            [-x.log_likelihood for x in likelihoods], [float(x.tokens) for x in likelihoods]
        )
    return statistics


def _confusion_matrices(task: Task, references: Sequence[str], answers: Answers) -> Confusion:
    base, tuned = (
        confusion_matrix(task.labels, references, [answer.text for answer in answers[name]])
        for name in VARIANTS
    )
    return {"labels": base.labels, "base": base.matrix, "tuned": tuned.matrix}


def _records_to_json(
    held_out: HeldOutData,
    answers: Answers,
    scored: Mapping[Variant, Sequence[tuple[float, bool | None]]],
    likelihoods: Likelihoods,
) -> Iterator[EvaluatedRecord]:
    def scored_answer(name: Variant, index: int) -> ScoredAnswer:
        answer, (score, correct) = answers[name][index], scored[name][index]
        likelihood = likelihoods[name][index] if name in likelihoods else None
        return {
            "text": answer.text,
            "score": score,
            "correct": correct,
            "tokens": answer.tokens,
            "finishReason": answer.finish_reason,
            "logLikelihood": likelihood.log_likelihood if likelihood else None,
            "referenceTokens": likelihood.tokens if likelihood else None,
        }

    for index, example in enumerate(held_out.examples):
        base, tuned = scored_answer(BASE, index), scored_answer(TUNED, index)
        yield make_record(index, example, base, tuned)
