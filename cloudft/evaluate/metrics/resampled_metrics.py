"""Build metrics as functions of record indices, for the bootstrap to recompute many times.

Over all records, each equals the libraries' metric in scores.py (a test compares them).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from cloudft.evaluate.metrics.intervals import Statistic
from cloudft.evaluate.metrics.json_values import count_matching_fields, parse_json_answer
from cloudft.evaluate.metrics.labels import normalize_text
from cloudft.evaluate.metrics.scores import (
    import_library,
    is_same_text,
    number_labels,
    rouge_scorer,
    score_record,
)
from cloudft.evaluate.metrics.tasks import Task

if TYPE_CHECKING:
    from cloudft.evaluate.metrics.intervals import Floats, Indices

WeightedSums = tuple[list[float], list[float]]
"""A value and a weight for each record; the metric is the sum of values over that of weights."""


def build_ratio_statistic(
    values: Sequence[float],
    weights: Sequence[float],
    transform: Callable[[float], float] = float,
) -> Statistic:
    """Return a function of record indices: the sum of their values over that of their weights."""
    import numpy as np

    numerators, denominators = np.asarray(values, float), np.asarray(weights, float)

    def statistic(indices: Indices) -> float:
        return transform(numerators[indices].sum() / max(denominators[indices].sum(), 1e-300))

    return statistic


def build_additive_metrics(
    task: Task, references: Sequence[str], texts: Sequence[str]
) -> Mapping[str, WeightedSums]:
    """Return those metrics of a task that are ratios of sums over records."""
    ones = [1.0] * len(references)
    pairs = list(zip(references, texts, strict=True))
    if task.name == "json":
        parsed = [(parse_json_answer(r), parse_json_answer(t)) for r, t in pairs]
        counts = [count_matching_fields(expected, actual) for expected, actual in parsed]
        return {
            "fieldF1": (
                [2.0 * hits for hits, _, _ in counts],
                [float(expected + actual) for _, expected, actual in counts],
            ),
            "exactMatch": ([float(bool(score_record(task, r, t)[1])) for r, t in pairs], ones),
            "validShare": ([float(parse_json_answer(t) is not None) for t in texts], ones),
        }
    metrics = {"exactMatch": ([float(is_same_text(r, t)) for r, t in pairs], ones)}
    if task.name == "classification":
        metrics["accuracy"] = ([score_record(task, r, t)[0] for r, t in pairs], ones)
    if task.name == "text":
        scored = [rouge_scorer().score(normalize_text(r), normalize_text(t)) for r, t in pairs]
        for name in ("rouge1", "rouge2", "rougeL"):
            metrics[name] = ([score[name].fmeasure for score in scored], ones)
    return metrics


def build_f1_statistics(
    labels: Sequence[str], references: Sequence[str], texts: Sequence[str]
) -> dict[str, Statistic]:
    """Return macro and micro F1 over the labels of the references, as functions of indices.

    A resample has the labels of its own references: one that it did not draw has no F1.
    """
    import numpy as np

    truth, answers = number_labels(labels, references, texts)
    row_of = {label: i for i, label in enumerate(sorted(set(truth)))}
    # One more column than rows: answers with any other label, or none.
    others = len(row_of)
    row = np.array([row_of[label] for label in truth])
    column = np.array([row_of.get(label, others) for label in answers])
    cells = row * (others + 1) + column

    def counts(indices: Indices) -> tuple[Floats, Floats]:
        """Return for each label: correct answers, and references plus answers with it."""
        matrix = np.bincount(cells[indices], minlength=others * (others + 1))
        matrix = matrix.reshape(others, others + 1).astype(float)
        sums = matrix.sum(1) + matrix.sum(0)[:others]
        present = matrix.sum(1) > 0
        return matrix.diagonal()[present], sums[present]

    def macro(indices: Indices) -> float:
        hits, sums = counts(indices)
        return float((2 * hits / sums).mean())

    def micro(indices: Indices) -> float:
        hits, sums = counts(indices)
        return float(2 * hits.sum() / max(1, sums.sum()))

    return {"macroF1": macro, "microF1": micro}


class _CorpusScore(Protocol):
    score: float


class _CorpusMetric(Protocol):
    """The two methods of sacrebleu's metrics that are used here."""

    def _extract_corpus_statistics(
        self, hypotheses: list[str], references: list[list[str]]
    ) -> list[list[float]]:
        """Return the counts of n-grams of each record."""

    def _aggregate_and_compute(self, stats: list[Floats]) -> _CorpusScore:
        """Return the score of summed counts, 0 to 100."""


def build_corpus_statistics(
    references: Sequence[str], texts: Sequence[str]
) -> dict[str, Statistic]:
    """Return BLEU and chrF of a corpus, 0 to 1, as functions of record indices.

    Their n-gram counts are sums over records. sacrebleu has no public function for that; its own
    `significance` module uses the same two methods.
    """
    import numpy as np

    metrics = import_library("sacrebleu.metrics", "sacrebleu")
    expected, answers = list(map(normalize_text, references)), list(map(normalize_text, texts))

    def build(metric: _CorpusMetric) -> Statistic:
        counts = np.array(metric._extract_corpus_statistics(answers, [expected]))

        def statistic(indices: Indices) -> float:
            return float(metric._aggregate_and_compute([counts[indices].sum(axis=0)]).score) / 100

        return statistic

    return {"bleu": build(metrics.BLEU()), "chrf": build(metrics.CHRF())}
