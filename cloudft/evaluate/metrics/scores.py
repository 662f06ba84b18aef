"""Score answers against their references. The metrics are the libraries' own; all are 0 to 1.

Accuracy, F1 and confusion: scikit-learn. ROUGE: rouge-score (F-measure, stemmed). BLEU and chrF:
sacrebleu, divided by 100.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Protocol

from cloudft.errors import UsageError
from cloudft.evaluate.metrics.json_values import (
    count_matching_fields,
    freeze_answer,
    is_equal,
    parse_json_answer,
)
from cloudft.evaluate.metrics.labels import extract_label, match_label, normalize_text
from cloudft.evaluate.metrics.tasks import Task

HEADLINE_METRIC: Mapping[str, str] = {
    "classification": "accuracy",
    "json": "fieldF1",
    "text": "chrf",
    "language-modelling": "bitsPerByte",
    "reward": "reward",
}
"""The headline metric of each task."""
LOWER_IS_BETTER = frozenset(
    {
        "bitsPerByte",
        "perplexity",
        "generalBitsPerByte",
        "generalPerplexity",
        "referenceLoss",
        "emptyShare",
        "cutShare",
        "refusalShare",
        "noLabelShare",
        "answerTokens",
    }
)
NO_LABEL, NO_LABEL_NUMBER = "(none of them)", -1
"""Name and number of what an answer without a label means."""
REFUSAL_PREFIXES = (
    "i can't",
    "i cannot",
    "i can not",
    "i'm sorry",
    "i am sorry",
    "i'm unable",
    "i am unable",
    "i'm not able",
    "as an ai",
    "as a language model",
)
"""Beginnings of an answer that refuses."""


def score_record(task: Task, reference: str, text: str) -> tuple[float, bool | None]:
    """Return a record's score, 0 to 1, and whether it is correct (None where that is undefined)."""
    if task.name == "classification":
        label = extract_label(text, task.labels)
        correct = label is not None and label == match_label(reference, task.labels)
        return float(correct), correct
    if task.name == "json":
        expected, actual = parse_json_answer(reference), parse_json_answer(text)
        if actual is None:
            return 0.0, False
        return _f1(*count_matching_fields(expected, actual)), is_equal(expected, actual)
    equal = is_same_text(reference, text)
    # chrF has no n-gram in common where there is none: an empty answer to an empty reference.
    return (1.0 if equal else _sentence_chrf(reference, text)), equal


def is_same_text(reference: str, text: str) -> bool:
    """Return whether two texts are equal in Unicode's form NFC, without white space around them."""
    return normalize_text(reference) == normalize_text(text)


def answer_value(task: Task, text: str) -> Hashable:
    """Return what is compared of two answers: the label, the JSON value, or the text.

    Texts are compared without regard to case and white space.
    """
    if task.name == "json":
        return freeze_answer(text)
    label = extract_label(text, task.labels) if task.labels else None
    plain = " ".join(normalize_text(text).casefold().split())
    # An answer that is no label is not equal to the label that it is spelled like.
    return ("text", plain) if label is None else ("label", label)


def aggregate_metrics(
    task: Task, references: Sequence[str], texts: Sequence[str], *, truncated: Sequence[bool]
) -> dict[str, float]:
    """Return every metric of a task over all records, also those that mean nothing for its data.

    `truncated` marks the answers that reached the token limit. See `find_meaningless_metrics`.
    """
    compute: Mapping[str, Callable[[Task, Sequence[str], Sequence[str]], dict[str, float]]] = {
        "classification": _classification_metrics,
        "json": _json_metrics,
        "text": _text_metrics,
    }
    metrics = compute[task.name](task, references, texts)
    return metrics | _format_metrics(references, texts, truncated)


def _format_metrics(
    references: Sequence[str], texts: Sequence[str], truncated: Sequence[bool]
) -> dict[str, float]:
    """Return metrics of the answers' form, whatever their content."""
    count = len(texts)
    ratios = [
        len(text.strip()) / len(reference.strip())
        for reference, text in zip(references, texts, strict=True)
        if reference.strip()
    ]
    refused = sum(
        text.strip().casefold().replace("\u2019", "'").startswith(REFUSAL_PREFIXES)
        for text in texts
    )
    return {
        "emptyShare": sum(not text.strip() for text in texts) / count,
        "cutShare": sum(truncated) / count,
        "refusalShare": refused / count,
        "lengthRatio": math.fsum(ratios) / max(1, len(ratios)),
    }


def _exact_share(references: Sequence[str], texts: Sequence[str]) -> float:
    pairs = zip(references, texts, strict=True)
    return sum(is_same_text(r, t) for r, t in pairs) / len(texts)


def _classification_metrics(
    task: Task, references: Sequence[str], texts: Sequence[str]
) -> dict[str, float]:
    sklearn_metrics = import_library("sklearn.metrics", "scikit-learn")
    truth, answers = number_labels(task.labels, references, texts)
    labels = sorted(set(truth))

    def f1(average: str) -> float:
        score = sklearn_metrics.f1_score(
            truth, answers, labels=labels, average=average, zero_division=0
        )
        return float(score)

    return {
        "accuracy": float(sklearn_metrics.accuracy_score(truth, answers)),
        "macroF1": f1("macro"),
        "microF1": f1("micro"),
        "exactMatch": _exact_share(references, texts),
        "noLabelShare": answers.count(NO_LABEL_NUMBER) / len(answers),
    }


def _json_metrics(task: Task, references: Sequence[str], texts: Sequence[str]) -> dict[str, float]:
    expected = [parse_json_answer(reference) for reference in references]
    actual = [parse_json_answer(text) for text in texts]
    counts = [count_matching_fields(e, a) for e, a in zip(expected, actual, strict=True)]
    hits, all_expected, all_actual = (sum(column) for column in zip(*counts, strict=True))
    count = len(texts)
    equal = sum(is_equal(e, a) for e, a in zip(expected, actual, strict=True))
    return {
        "fieldF1": _f1(hits, all_expected, all_actual),
        "exactMatch": equal / count,
        "validShare": sum(value is not None for value in actual) / count,
    }


def _text_metrics(task: Task, references: Sequence[str], texts: Sequence[str]) -> dict[str, float]:
    sacrebleu = import_library("sacrebleu", "sacrebleu")
    expected, answers = list(map(normalize_text, references)), list(map(normalize_text, texts))
    scored = [rouge_scorer().score(r, t) for r, t in zip(expected, answers, strict=True)]

    def mean(name: str) -> float:
        return math.fsum(score[name].fmeasure for score in scored) / len(scored)

    return {
        "chrf": sacrebleu.corpus_chrf(answers, [expected]).score / 100,
        "bleu": sacrebleu.corpus_bleu(answers, [expected]).score / 100,
        "rouge1": mean("rouge1"),
        "rouge2": mean("rouge2"),
        "rougeL": mean("rougeL"),
        "exactMatch": _exact_share(references, texts),
    }


class RougeScore(Protocol):
    """The part of rouge-score's result that is used here."""

    fmeasure: float


class RougeScorer(Protocol):
    """The part of rouge-score's scorer that is used here."""

    def score(self, target: str, prediction: str) -> Mapping[str, RougeScore]:
        """Return the scores by name."""


@lru_cache(maxsize=1)
def rouge_scorer() -> RougeScorer:
    """Return the scorer of ROUGE-1, -2 and -L, with stemming."""
    module = import_library("rouge_score.rouge_scorer", "rouge-score")
    scorer: RougeScorer = module.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    return scorer


def _sentence_chrf(reference: str, text: str) -> float:
    sacrebleu = import_library("sacrebleu", "sacrebleu")
    return (
        float(sacrebleu.sentence_chrf(normalize_text(text), [normalize_text(reference)]).score)
        / 100
    )


@dataclass(frozen=True)
class ConfusionMatrix:
    """Counts of answers: a row for each right label, a column for each answered one."""

    labels: list[str]
    matrix: list[list[int]]


def confusion_matrix(
    labels: Sequence[str], references: Sequence[str], texts: Sequence[str]
) -> ConfusionMatrix:
    """Return the confusion matrix; its last row and column are `NO_LABEL`."""
    sklearn_metrics = import_library("sklearn.metrics", "scikit-learn")
    truth, answers = number_labels(labels, references, texts)
    none = len(labels)
    matrix = sklearn_metrics.confusion_matrix(
        truth, [none if n == NO_LABEL_NUMBER else n for n in answers], labels=range(none + 1)
    )
    name = NO_LABEL
    while name in labels:
        name = f"({name})"
    return ConfusionMatrix([*labels, name], matrix.tolist())


def number_labels(
    labels: Sequence[str], references: Sequence[str], texts: Sequence[str]
) -> tuple[list[int], list[int]]:
    """Return the numbers of the references' labels and of those that the answers mean.

    An answer without a label has `NO_LABEL_NUMBER`; a reference that is no label has the number
    after the last label, which no answer has.
    """
    number = {label: i for i, label in enumerate(labels)}
    truth = [match_label(reference, labels) for reference in references]
    answers = [extract_label(text, labels) for text in texts]
    return (
        [len(labels) if label is None else number[label] for label in truth],
        [NO_LABEL_NUMBER if label is None else number[label] for label in answers],
    )


def _f1(hits: int, expected: int, actual: int) -> float:
    """Return 2 x hits / (expected + actual): the harmonic mean of precision and recall."""
    return 2 * hits / (expected + actual) if expected + actual else 1.0


def import_library(name: str, distribution: str) -> ModuleType:
    """Return a module of the extra `evaluate`. Raises UsageError when it is not installed."""
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise UsageError(
            f"scoring needs {distribution}, which is not installed",
            fix="pip install 'cloudft[evaluate]'",
        ) from error
