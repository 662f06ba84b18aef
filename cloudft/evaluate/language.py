"""A model that was pre-trained further and its base, by how well they predict text."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cloudft.backends.base import Likelihood
from cloudft.errors import UsageError
from cloudft.evaluate.ask import BASE, TUNED, VARIANTS, Models
from cloudft.evaluate.cloze import gaps
from cloudft.evaluate.held_out import HeldOut
from cloudft.evaluate.resampling import ratio
from cloudft.evaluate.slices import slices
from cloudft.evaluate.statistics import paired, paired_interval
from cloudft.evaluate.supervised import significance


def judged(models: Models, held: HeldOut, general: Sequence[str]) -> dict[str, Any]:
    """Bits per byte and perplexity of the held-out and of general text, and a cloze of terms.

    Bits per byte can be compared across tokenizers; perplexity is per token of the model's own.
    Raises UsageError for a backend that tells no likelihoods.
    """
    if not models.scores:
        raise UsageError(
            "this backend does not tell how likely its models hold text, so a model that was"
            " pre-trained further can't be evaluated through it",
            fix="run the same job with --backend local; or ask it with `cloudft generate JOB`.",
        )
    texts = [item.reference for item in held.items]
    found = {name: models.texts("held-out text", texts, name) for name in VARIANTS}
    plain = {name: models.texts("general text", general, name) for name in VARIANTS}
    terms = gaps(texts, general)
    filled = {name: models.likelihoods("cloze", terms, name) for name in VARIANTS}
    metrics = {
        name: {
            **_of(found[name], texts, ""),
            **_of(plain[name], general, "general"),
            **({"clozeAccuracy": _share(filled[name])} if terms else {}),
        }
        for name in VARIANTS
    }
    bits = {
        name: [_bits([o], [t]) for o, t in zip(found[name], texts, strict=True)]
        for name in VARIANTS
    }
    difference = paired(bits[BASE], bits[TUNED], lower_is_better=True)
    deltas = _deltas(metrics, found, plain, filled, texts, general)
    return {
        "task": "language-modelling",
        "n": len(texts),
        "metric": "bitsPerByte",
        **metrics,
        "delta": deltas,
        "significance": significance(
            difference, "bitsPerByte", metrics, deltas["bitsPerByte"], lower_is_better=True
        ),
        "labels": None,
        "confusion": None,
        "slices": slices([None] * len(texts), list(map(len, texts)), bits[BASE], bits[TUNED]),
        "clozeTerms": len(terms),
        "records": [_record(held, place, found, bits) for place in range(len(texts))],
    }


def _record(
    held: HeldOut,
    place: int,
    found: Mapping[str, Sequence[Likelihood]],
    bits: Mapping[str, Sequence[float]],
) -> dict[str, Any]:
    """One document and what it takes each model."""
    item = held.items[place]
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


def _bits(found: Sequence[Likelihood], texts: Sequence[str]) -> float:
    """Bits a byte of UTF-8 (Gao et al. 2020, The Pile, section 3.1)."""
    size = sum(len(text.encode()) for text in texts)
    return -math.fsum(one.log_likelihood for one in found) / math.log(2) / max(1, size)


def _perplexity(found: Sequence[Likelihood]) -> float | None:
    """Exp of the mean loss of a token; None beyond what a float holds."""
    loss = -math.fsum(one.log_likelihood for one in found) / max(1, sum(o.tokens for o in found))
    return math.exp(loss) if loss < 700 else None


def _share(filled: Sequence[Likelihood]) -> float:
    return sum(one.greedy for one in filled) / len(filled)


def _of(found: Sequence[Likelihood], texts: Sequence[str], prefix: str) -> dict[str, float | None]:
    values = {"bitsPerByte": _bits(found, texts), "perplexity": _perplexity(found)}
    if not prefix:
        return dict(values)
    return {prefix + name[0].upper() + name[1:]: value for name, value in values.items()}


def _deltas(
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
                ratio([one.greedy for one in filled[v]], [1.0] * len(filled[v])) for v in VARIANTS
            ]
            count = len(filled[BASE])
        else:
            ways = [_statistic(name.lower(), of[v], beside) for v in VARIANTS]
            count = len(beside)
        low, high = paired_interval(ways[0], ways[1], count)
        deltas[name] = {"value": tuned - base, "low": low, "high": high}
    return deltas


def _statistic(
    name: str, found: Sequence[Likelihood], texts: Sequence[str]
) -> Callable[[Any], float]:
    losses = [-one.log_likelihood for one in found]
    if name.endswith("perplexity"):
        return ratio(losses, [float(one.tokens) for one in found], math.exp)
    return ratio([loss / math.log(2) for loss in losses], [float(len(t.encode())) for t in texts])
