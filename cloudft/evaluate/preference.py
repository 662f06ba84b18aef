"""Evaluate a model after preference optimization and its base: which of two answers they prefer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cloudft.errors import UsageError
from cloudft.evaluate.held_out import HeldOutData
from cloudft.evaluate.inference.cached_inference import (
    BASE,
    TUNED,
    VARIANTS,
    CachedInference,
    Variant,
)
from cloudft.evaluate.metrics.intervals import paired_mean_interval
from cloudft.evaluate.metrics.significance import compare_paired
from cloudft.evaluate.metrics.slices import compute_slices
from cloudft.evaluate.results import (
    PREFERENCE_TASK,
    EvaluatedRecord,
    EvaluationScores,
    ScoredAnswer,
    make_delta,
    make_record,
)
from cloudft.evaluate.supervised import significance_to_json
from cloudft.inference import Likelihood

METRIC, MARGIN = "preferenceAccuracy", "rewardMargin"
Pairs = Sequence[tuple[Likelihood, Likelihood]]
"""The log-likelihoods of each pair's chosen and rejected answer."""


def evaluate_preferences(
    models: CachedInference, held_out: HeldOutData, beta: float
) -> EvaluationScores:
    """Return how often each model finds the chosen answer of a pair likelier than the rejected one.

    Log-likelihoods are per token, so that a shorter answer has no advantage. The reward margin is
    DPO's: beta times how much further apart the tuned model has the two answers than the base,
    which is 0 for the base itself. Raise UsageError for a backend without log-likelihoods.
    """
    if not models.has_likelihoods:
        raise UsageError(
            "this backend returns no log-likelihoods, so it can't tell which answer is preferred",
            fix="run the same job with --backend local, or try the model with `cloudft generate"
            " JOB`.",
        )
    pairs = {name: _score_pairs(models, held_out, name) for name in VARIANTS}
    hits: dict[Variant, list[float]] = {
        name: [float(_mean(a) > _mean(b)) for a, b in pairs[name]] for name in VARIANTS
    }
    margins = [
        beta * (_distance(tuned) - _distance(base))
        for base, tuned in zip(pairs[BASE], pairs[TUNED], strict=True)
    ]
    count, zeros = len(margins), [0.0] * len(margins)
    metrics: dict[Variant, dict[str, float | None]] = {
        BASE: {METRIC: sum(hits[BASE]) / count, MARGIN: 0.0},
        TUNED: {METRIC: sum(hits[TUNED]) / count, MARGIN: sum(margins) / count},
    }
    difference = compare_paired(hits[BASE], hits[TUNED])
    delta = {
        METRIC: make_delta(difference.delta, difference.interval),
        MARGIN: make_delta(sum(margins) / count, paired_mean_interval(zeros, margins)),
    }
    lengths = [len(example.reference) for example in held_out.examples]
    return {
        "task": PREFERENCE_TASK,
        "n": count,
        "metric": METRIC,
        "base": metrics[BASE],
        "tuned": metrics[TUNED],
        "delta": delta,
        "significance": significance_to_json(difference, METRIC, metrics, delta[METRIC]),
        "labels": None,
        "confusion": None,
        "slices": compute_slices([None] * count, lengths, hits[BASE], hits[TUNED]),
        "records": [_record_to_json(held_out, at, pairs, hits) for at in range(count)],
    }


def _score_pairs(models: CachedInference, held_out: HeldOutData, name: Variant) -> Pairs:
    requests = []
    for example in held_out.examples:
        assert example.rejected is not None, "held-out records of a preference job are pairs"
        requests += [example.scoring_request, example.rejected]
    scored = models.score_continuations("pairs of answers", requests, name)
    return list(zip(scored[::2], scored[1::2], strict=True))


def _mean(likelihood: Likelihood) -> float:
    return likelihood.log_likelihood / max(1, likelihood.tokens)


def _distance(pair: tuple[Likelihood, Likelihood]) -> float:
    chosen, rejected = pair
    return chosen.log_likelihood - rejected.log_likelihood


def _record_to_json(
    held_out: HeldOutData,
    index: int,
    pairs: Mapping[Variant, Pairs],
    hits: Mapping[Variant, Sequence[float]],
) -> EvaluatedRecord:
    """Return one pair with each model's log-likelihood of the chosen answer."""
    example = held_out.examples[index]

    def scored(name: Variant) -> ScoredAnswer:
        chosen, _ = pairs[name][index]
        return {
            "logLikelihood": chosen.log_likelihood,
            "referenceTokens": chosen.tokens,
            "score": hits[name][index],
            "correct": bool(hits[name][index]),
        }

    return make_record(index, example, scored(BASE), scored(TUNED))
