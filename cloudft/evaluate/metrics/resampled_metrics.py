"""Metrics as functions of which records are looked at: what a bootstrap computes again and again.

Each is, over all records, what scores.py takes from the libraries (a test holds them together).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cloudft.evaluate.metrics.scores import (
    NO_LABEL,
    count_matching_fields,
    extract_label,
    import_library,
    parse_json_answer,
    rouge_scorer,
    score_record,
)
from cloudft.evaluate.metrics.tasks import Task

WeightedSums = tuple[list[float], list[float]]
"""A value and a weight of each record; the metric is the sum of those over the sum of these."""


def build_ratio_statistic(
    values: Sequence[float], weights: Sequence[float], transform: Callable[[float], float] = float
) -> Callable[[Any], float]:
    """A statistic of record numbers: the sum of their values over the sum of their weights."""
    import numpy as np

    above, below = np.asarray(values, float), np.asarray(weights, float)

    def statistic(places: Any) -> float:
        return transform(above[places].sum() / max(below[places].sum(), 1e-300))

    return statistic


def build_additive_metrics(
    task: Task, references: Sequence[str], texts: Sequence[str]
) -> Mapping[str, WeightedSums]:
    """The metrics of a task that are sums over records."""
    ones = [1.0] * len(references)
    pairs = list(zip(references, texts, strict=True))
    if task.name == "json":
        counts = [
            count_matching_fields(parse_json_answer(r), parse_json_answer(t)) for r, t in pairs
        ]
        return {
            "fieldF1": (
                [2.0 * hits for hits, _, _ in counts],
                [float(w + f) for _, w, f in counts],
            ),
            "exactMatch": ([float(bool(score_record(task, r, t)[1])) for r, t in pairs], ones),
            "validShare": ([float(parse_json_answer(t) is not None) for t in texts], ones),
        }
    found = {"exactMatch": ([float(r.strip() == t.strip()) for r, t in pairs], ones)}
    if task.name == "classification":
        found["accuracy"] = ([score_record(task, r, t)[0] for r, t in pairs], ones)
    if task.name == "text":
        for name in ("rouge1", "rouge2", "rougeL"):
            found[name] = ([rouge_scorer().score(r, t)[name].fmeasure for r, t in pairs], ones)
    return found


def build_f1_statistics(
    labels: Sequence[str], references: Sequence[str], texts: Sequence[str]
) -> dict[str, Callable[[Any], float]]:
    """Macro and micro F1 over the labels that the references have."""
    import numpy as np

    truth = [extract_label(r, labels) or r.strip() for r in references]
    there = sorted(set(truth))
    place = {label: at for at, label in enumerate(there)}
    others = len(there)
    row = np.array([place[label] for label in truth])
    column = np.array([place.get(extract_label(t, labels) or NO_LABEL, others) for t in texts])
    cells = row * (others + 1) + column

    def counts(places: Any) -> Any:
        """Hits, and right plus answered, of each label."""
        matrix = np.bincount(cells[places], minlength=others * (others + 1))
        matrix = matrix.reshape(others, others + 1)
        return matrix.diagonal(), matrix.sum(1) + matrix.sum(0)[:others]

    def macro(places: Any) -> float:
        hits, sums = counts(places)
        return float((2 * hits / np.maximum(sums, 1)).mean())

    def micro(places: Any) -> float:
        hits, sums = counts(places)
        return float(2 * hits.sum() / max(1, sums.sum()))

    return {"macroF1": macro, "microF1": micro}


def build_corpus_statistics(
    references: Sequence[str], texts: Sequence[str]
) -> dict[str, Callable[[Any], float]]:
    """BLEU and chrF of a corpus, 0 to 1.

    Their counts of n-grams are sums over records. sacrebleu has no public name for that; its own
    `significance` takes the same two methods.
    """
    import numpy as np

    metrics = import_library("sacrebleu.metrics", "sacrebleu")

    def statistic(metric: Any) -> Callable[[Any], float]:
        counts = np.array(metric._extract_corpus_statistics(list(texts), [list(references)]))

        def score(places: Any) -> float:
            return float(metric._aggregate_and_compute([counts[places].sum(axis=0)]).score) / 100

        return score

    return {"bleu": statistic(metrics.BLEU()), "chrf": statistic(metrics.CHRF())}
