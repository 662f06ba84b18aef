"""Evaluate a model after continued pre-training and its base by how well they predict text."""

from __future__ import annotations

import math
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
from cloudft.evaluate.metrics.cloze import find_cloze_gaps
from cloudft.evaluate.metrics.intervals import (
    Statistic,
    bootstrap_difference_interval,
    paired_mean_interval,
)
from cloudft.evaluate.metrics.resampled_metrics import build_ratio_statistic
from cloudft.evaluate.metrics.significance import compare_paired
from cloudft.evaluate.metrics.slices import compute_slices
from cloudft.evaluate.results import (
    LANGUAGE_MODELING_TASK,
    Delta,
    EvaluatedRecord,
    EvaluationScores,
    ScoredAnswer,
    make_delta,
)
from cloudft.evaluate.supervised import significance_to_json
from cloudft.inference import Likelihood

METRIC = "bitsPerByte"
CLOZE_METRIC = "clozeAccuracy"
MAX_LOSS = 700
"""A float holds exp of this loss, in nats per token."""

Likelihoods = Mapping[Variant, Sequence[Likelihood]]
Metrics = Mapping[Variant, Mapping[str, float | None]]


def evaluate_language_modeling(
    models: CachedInference, held_out: HeldOutData, general: Sequence[str]
) -> EvaluationScores:
    """Return bits per byte and perplexity of held-out and general text, and a cloze test of terms.

    Bits per byte are comparable across tokenizers; perplexity is per token of the model's own
    tokenizer. Raises UsageError for a backend that returns no log-likelihoods.
    """
    if not models.has_likelihoods:
        raise UsageError(
            "this backend returns no log-likelihoods, so it can't evaluate a model after continued"
            " pre-training",
            fix="run the same job with --backend local, or try the model with `cloudft generate"
            " JOB`.",
        )
    texts = [example.reference for example in held_out.examples]
    domain = {name: models.score_texts("held-out text", texts, name) for name in VARIANTS}
    plain = {name: models.score_texts("general text", general, name) for name in VARIANTS}
    gaps = find_cloze_gaps(texts, general)
    cloze = {name: models.score_continuations("cloze", gaps, name) for name in VARIANTS}
    metrics = {
        name: _text_metrics(domain[name], texts, "")
        | _text_metrics(plain[name], general, "general")
        | _cloze_metrics(cloze[name])
        for name in VARIANTS
    }
    bits = {
        name: [_bits_per_byte([x], [text]) for x, text in zip(domain[name], texts, strict=True)]
        for name in VARIANTS
    }
    statistics = {
        name: _build_statistics(domain[name], texts, "")
        | _build_statistics(plain[name], general, "general")
        for name in VARIANTS
    }
    deltas = _compute_deltas(metrics, statistics, {"": len(texts), "general": len(general)})
    if gaps:
        deltas[CLOZE_METRIC] = _cloze_delta(metrics, cloze)
    difference = compare_paired(bits[BASE], bits[TUNED], lower_is_better=True)
    return {
        "task": LANGUAGE_MODELING_TASK,
        "n": len(texts),
        "metric": METRIC,
        "base": metrics[BASE],
        "tuned": metrics[TUNED],
        "delta": deltas,
        "significance": significance_to_json(
            difference, METRIC, metrics, deltas[METRIC], lower_is_better=True
        ),
        "labels": None,
        "confusion": None,
        "slices": compute_slices(
            [None] * len(texts), list(map(len, texts)), bits[BASE], bits[TUNED]
        ),
        "clozeTerms": len(gaps),
        "records": [_record_to_json(held_out, i, domain, bits) for i in range(len(texts))],
    }


def _record_to_json(
    held_out: HeldOutData,
    index: int,
    likelihoods: Likelihoods,
    bits: Mapping[Variant, Sequence[float]],
) -> EvaluatedRecord:
    """Return one document with each model's log-likelihood of it."""
    example = held_out.examples[index]
    size = len(example.reference.encode())

    def scored(name: Variant) -> ScoredAnswer:
        likelihood = likelihoods[name][index]
        return {
            "logLikelihood": likelihood.log_likelihood,
            "referenceTokens": likelihood.tokens,
            "bytes": size,
            "score": bits[name][index],
            "correct": None,
        }

    return {
        "index": index,
        "key": example.key,
        "file": example.file,
        "line": example.line,
        "prompt": "",
        "reference": example.reference,
        "base": scored(BASE),
        "tuned": scored(TUNED),
    }


def _bits_per_byte(likelihoods: Sequence[Likelihood], texts: Sequence[str]) -> float:
    """Return bits per byte of UTF-8 (Gao et al. 2020, The Pile, section 3.1)."""
    size = sum(len(text.encode()) for text in texts)
    return -math.fsum(x.log_likelihood for x in likelihoods) / math.log(2) / max(1, size)


def _perplexity(likelihoods: Sequence[Likelihood]) -> float | None:
    """Return exp of the mean loss per token, or None when a float can't hold it."""
    tokens = max(1, sum(x.tokens for x in likelihoods))
    loss = -math.fsum(x.log_likelihood for x in likelihoods) / tokens
    return math.exp(loss) if loss < MAX_LOSS else None


def _exp_of_loss(loss: float) -> float:
    """Return the perplexity of a resample, at most what a float can hold."""
    return math.exp(min(loss, MAX_LOSS))


def _cloze_metrics(cloze: Sequence[Likelihood]) -> dict[str, float | None]:
    """Return the share of gaps that greedy decoding fills; nothing without gaps."""
    return {CLOZE_METRIC: sum(x.greedy for x in cloze) / len(cloze)} if cloze else {}


def _metric_name(prefix: str, name: str) -> str:
    return prefix + name[0].upper() + name[1:] if prefix else name


def _text_metrics(
    likelihoods: Sequence[Likelihood], texts: Sequence[str], prefix: str
) -> dict[str, float | None]:
    return {
        _metric_name(prefix, "bitsPerByte"): _bits_per_byte(likelihoods, texts),
        _metric_name(prefix, "perplexity"): _perplexity(likelihoods),
    }


def _build_statistics(
    likelihoods: Sequence[Likelihood], texts: Sequence[str], prefix: str
) -> dict[str, Statistic]:
    """Return the metrics of `_text_metrics` as functions of document indices."""
    losses = [-x.log_likelihood for x in likelihoods]
    bits = [loss / math.log(2) for loss in losses]
    tokens = [float(x.tokens) for x in likelihoods]
    return {
        _metric_name(prefix, "bitsPerByte"): build_ratio_statistic(
            bits, [float(len(text.encode())) for text in texts]
        ),
        _metric_name(prefix, "perplexity"): build_ratio_statistic(losses, tokens, _exp_of_loss),
    }


def _compute_deltas(
    metrics: Metrics,
    statistics: Mapping[Variant, Mapping[str, Statistic]],
    counts: Mapping[str, int],
) -> dict[str, Delta]:
    """Return tuned minus base of each text metric, with 95 % bootstrap intervals over documents.

    `counts` are the numbers of documents, by the metric's prefix.
    """
    deltas: dict[str, Delta] = {}
    for name, base_statistic in statistics[BASE].items():
        base, tuned = metrics[BASE][name], metrics[TUNED][name]
        if base is None or tuned is None:
            deltas[name] = make_delta(None, None)
            continue
        count = counts["general" if name.startswith("general") else ""]
        deltas[name] = make_delta(
            tuned - base,
            bootstrap_difference_interval(base_statistic, statistics[TUNED][name], count),
        )
    return deltas


def _cloze_delta(metrics: Metrics, cloze: Likelihoods) -> Delta:
    """Return tuned minus base of the cloze accuracy, with its interval over gaps."""
    base, tuned = metrics[BASE][CLOZE_METRIC], metrics[TUNED][CLOZE_METRIC]
    assert base is not None and tuned is not None
    filled = {name: [float(x.greedy) for x in cloze[name]] for name in VARIANTS}
    return make_delta(tuned - base, paired_mean_interval(filled[BASE], filled[TUNED]))
