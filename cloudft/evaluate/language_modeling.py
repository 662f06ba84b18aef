"""A model that was pre-trained further and its base, by how well they predict text."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cloudft.errors import UsageError
from cloudft.evaluate.held_out import HeldOutData
from cloudft.evaluate.inference.cached_inference import BASE, TUNED, VARIANTS, CachedInference
from cloudft.evaluate.metrics.cloze import find_cloze_gaps
from cloudft.evaluate.metrics.resampled_metrics import build_ratio_statistic
from cloudft.evaluate.metrics.significance import bootstrap_difference_interval, compare_paired
from cloudft.evaluate.metrics.slices import compute_slices
from cloudft.evaluate.supervised import significance_to_json
from cloudft.inference import Likelihood


def evaluate_language_modeling(
    models: CachedInference, held: HeldOutData, general: Sequence[str]
) -> dict[str, Any]:
    """Bits per byte and perplexity of the held-out and of general text, and a cloze of terms.

    Bits per byte can be compared across tokenizers; perplexity is per token of the model's own.
    Raises UsageError for a backend that tells no likelihoods.
    """
    if not models.has_likelihoods:
        raise UsageError(
            "this backend does not tell how likely its models hold text, so a model that was"
            " pre-trained further can't be evaluated through it",
            fix="run the same job with --backend local; or ask it with `cloudft generate JOB`.",
        )
    texts = [item.reference for item in held.examples]
    found = {name: models.score_texts("held-out text", texts, name) for name in VARIANTS}
    plain = {name: models.score_texts("general text", general, name) for name in VARIANTS}
    terms = find_cloze_gaps(texts, general)
    filled = {name: models.score_continuations("cloze", terms, name) for name in VARIANTS}
    metrics = {
        name: {
            **_text_metrics(found[name], texts, ""),
            **_text_metrics(plain[name], general, "general"),
            **({"clozeAccuracy": _greedy_share(filled[name])} if terms else {}),
        }
        for name in VARIANTS
    }
    bits = {
        name: [_bits_per_byte([o], [t]) for o, t in zip(found[name], texts, strict=True)]
        for name in VARIANTS
    }
    difference = compare_paired(bits[BASE], bits[TUNED], lower_is_better=True)
    deltas = _compute_deltas(metrics, found, plain, filled, texts, general)
    return {
        "task": "language-modelling",
        "n": len(texts),
        "metric": "bitsPerByte",
        **metrics,
        "delta": deltas,
        "significance": significance_to_json(
            difference, "bitsPerByte", metrics, deltas["bitsPerByte"], lower_is_better=True
        ),
        "labels": None,
        "confusion": None,
        "slices": compute_slices(
            [None] * len(texts), list(map(len, texts)), bits[BASE], bits[TUNED]
        ),
        "clozeTerms": len(terms),
        "records": [_record_to_json(held, place, found, bits) for place in range(len(texts))],
    }


def _record_to_json(
    held: HeldOutData,
    place: int,
    found: Mapping[str, Sequence[Likelihood]],
    bits: Mapping[str, Sequence[float]],
) -> dict[str, Any]:
    """One document and what it takes each model."""
    item = held.examples[place]
    sides = {
        name: {
            "logLikelihood": found[name][place].log_likelihood,
            "referenceTokens": found[name][place].tokens,
            "bytes": len(item.reference.encode()),
            "score": bits[name][place],
            "correct": None,
        }
        for name in VARIANTS
    }
    return {
        "index": place,
        "key": item.key,
        "file": item.file,
        "line": item.line,
        "prompt": "",
        "reference": item.reference,
        **sides,
    }


def _bits_per_byte(found: Sequence[Likelihood], texts: Sequence[str]) -> float:
    """Bits a byte of UTF-8 (Gao et al. 2020, The Pile, section 3.1)."""
    size = sum(len(text.encode()) for text in texts)
    return -math.fsum(one.log_likelihood for one in found) / math.log(2) / max(1, size)


def _perplexity(found: Sequence[Likelihood]) -> float | None:
    """Exp of the mean loss of a token; None beyond what a float holds."""
    loss = -math.fsum(one.log_likelihood for one in found) / max(1, sum(o.tokens for o in found))
    return math.exp(loss) if loss < 700 else None


def _greedy_share(filled: Sequence[Likelihood]) -> float:
    return sum(one.greedy for one in filled) / len(filled)


def _text_metrics(
    found: Sequence[Likelihood], texts: Sequence[str], prefix: str
) -> dict[str, float | None]:
    values = {"bitsPerByte": _bits_per_byte(found, texts), "perplexity": _perplexity(found)}
    if not prefix:
        return dict(values)
    return {prefix + name[0].upper() + name[1:]: value for name, value in values.items()}


def _compute_deltas(
    metrics: Any, found: Any, plain: Any, filled: Any, texts: Sequence[str], general: Sequence[str]
) -> dict[str, dict[str, float | None]]:
    """Tuned minus base, with 95 % bootstrap intervals over documents (of the cloze, over gaps)."""
    deltas: dict[str, dict[str, float | None]] = {}
    for name, base in metrics[BASE].items():
        tuned = metrics[TUNED][name]
        deltas[name] = {"value": None, "low": None, "high": None}
        if base is None or tuned is None:
            continue
        of, beside = (plain, general) if name.startswith("general") else (found, texts)
        if name == "clozeAccuracy":
            ways = [
                build_ratio_statistic([one.greedy for one in filled[v]], [1.0] * len(filled[v]))
                for v in VARIANTS
            ]
            count = len(filled[BASE])
        else:
            ways = [_build_statistic(name.lower(), of[v], beside) for v in VARIANTS]
            count = len(beside)
        low, high = bootstrap_difference_interval(ways[0], ways[1], count)
        deltas[name] = {"value": tuned - base, "low": low, "high": high}
    return deltas


def _build_statistic(
    name: str, found: Sequence[Likelihood], texts: Sequence[str]
) -> Callable[[Any], float]:
    losses = [-one.log_likelihood for one in found]
    if name.endswith("perplexity"):
        return build_ratio_statistic(losses, [float(one.tokens) for one in found], math.exp)
    return build_ratio_statistic(
        [loss / math.log(2) for loss in losses], [float(len(t.encode())) for t in texts]
    )
