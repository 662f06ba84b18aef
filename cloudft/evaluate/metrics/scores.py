"""Score answers against their references. The metrics are the libraries' own; all are 0 to 1.

Accuracy, F1 and confusion: scikit-learn. ROUGE: rouge-score (F-measure, stemmed). BLEU and chrF:
sacrebleu, divided by 100.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Protocol

import orjson

from cloudft.errors import UsageError
from cloudft.evaluate.metrics.tasks import Task

HEADLINE_METRIC: Mapping[str, str] = {
    "classification": "accuracy",
    "json": "fieldF1",
    "text": "chrf",
    "language-modelling": "bitsPerByte",
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
NO_LABEL = "(none of them)"
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
STRIPPED_CHARACTERS = " \t\r\n\"'`*.,;:!?()[]"


JsonValue = object
"""A parsed JSON value."""


def extract_label(text: str, labels: Sequence[str]) -> str | None:
    """Return the label that an answer means, or None when it means none or several.

    White space, case, quotes and punctuation around the answer are ignored. An answer that is not
    exactly a label means the one label whose words occur in its first line.
    """
    known = _normalized_labels(tuple(labels))
    answer = _normalize(text)
    if answer in known:
        return known[answer]
    lines = text.strip().splitlines()
    first = f" {_words_only(lines[0])} " if lines else ""
    matches = {label for key, label in known.items() if f" {_words_only(key)} " in first}
    # "not_delivery" contains "delivery": of labels within other labels, the longer one is meant.
    longest = {
        a for a in matches if not any(a != b and _words_only(a) in _words_only(b) for b in matches)
    }
    return longest.pop() if len(longest) == 1 else None


@lru_cache(maxsize=8)
def _normalized_labels(labels: tuple[str, ...]) -> dict[str, str]:
    return {_normalize(label): label for label in labels}


def _normalize(text: str) -> str:
    return " ".join(text.strip(STRIPPED_CHARACTERS).casefold().split())


def _words_only(text: str) -> str:
    """Return the words; a hyphen or underscore within a word is kept."""
    return " ".join(re.findall(r"[\w-]+", text.casefold()))


def score_record(task: Task, reference: str, text: str) -> tuple[float, bool | None]:
    """Return a record's score, 0 to 1, and whether it is correct (None where that is undefined)."""
    if task.name == "classification":
        correct = extract_label(text, task.labels) == extract_label(reference, task.labels)
        return float(correct), correct
    if task.name == "json":
        expected, actual = parse_json_answer(reference), parse_json_answer(text)
        if actual is None:
            return 0.0, False
        return _f1(*count_matching_fields(expected, actual)), expected == actual
    return _sentence_chrf(reference, text), reference.strip() == text.strip()


def aggregate_metrics(
    task: Task, references: Sequence[str], texts: Sequence[str], *, truncated: Sequence[bool]
) -> dict[str, float]:
    """Return every metric of a task over all records.

    `truncated` marks the answers that reached the token limit.
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
        len(text.strip()) / max(1, len(reference.strip()))
        for reference, text in zip(references, texts, strict=True)
    ]
    refused = sum(
        text.strip().casefold().replace("\u2019", "'").startswith(REFUSAL_PREFIXES)
        for text in texts
    )
    return {
        "emptyShare": sum(not text.strip() for text in texts) / count,
        "cutShare": sum(truncated) / count,
        "refusalShare": refused / count,
        "lengthRatio": math.fsum(ratios) / count,
    }


def _exact_share(references: Sequence[str], texts: Sequence[str]) -> float:
    pairs = zip(references, texts, strict=True)
    return sum(r.strip() == t.strip() for r, t in pairs) / len(texts)


def _classification_metrics(
    task: Task, references: Sequence[str], texts: Sequence[str]
) -> dict[str, float]:
    sklearn_metrics = import_library("sklearn.metrics", "scikit-learn")
    truth = [extract_label(r, task.labels) or r.strip() for r in references]
    answers = [extract_label(t, task.labels) or NO_LABEL for t in texts]
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
        "noLabelShare": answers.count(NO_LABEL) / len(answers),
    }


def _json_metrics(task: Task, references: Sequence[str], texts: Sequence[str]) -> dict[str, float]:
    expected = [parse_json_answer(reference) for reference in references]
    actual = [parse_json_answer(text) for text in texts]
    counts = [count_matching_fields(e, a) for e, a in zip(expected, actual, strict=True)]
    hits, all_expected, all_actual = (sum(column) for column in zip(*counts, strict=True))
    count = len(texts)
    equal = sum(e == a and a is not None for e, a in zip(expected, actual, strict=True))
    return {
        "fieldF1": _f1(hits, all_expected, all_actual),
        "exactMatch": equal / count,
        "validShare": sum(value is not None for value in actual) / count,
    }


def _text_metrics(task: Task, references: Sequence[str], texts: Sequence[str]) -> dict[str, float]:
    sacrebleu = import_library("sacrebleu", "sacrebleu")
    answers = list(texts)
    scored = [rouge_scorer().score(r, t) for r, t in zip(references, answers, strict=True)]

    def mean(name: str) -> float:
        return math.fsum(score[name].fmeasure for score in scored) / len(scored)

    return {
        "chrf": sacrebleu.corpus_chrf(answers, [list(references)]).score / 100,
        "bleu": sacrebleu.corpus_bleu(answers, [list(references)]).score / 100,
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
    return float(sacrebleu.sentence_chrf(text, [reference]).score) / 100


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
    names = [*labels, NO_LABEL]
    truth = [extract_label(r, labels) or NO_LABEL for r in references]
    answers = [extract_label(t, labels) or NO_LABEL for t in texts]
    matrix = sklearn_metrics.confusion_matrix(truth, answers, labels=names)
    return ConfusionMatrix(names, matrix.tolist())


def parse_json_answer(text: str) -> JsonValue | None:
    """Return the JSON object or array in an answer, bare or in a code fence; None without one."""
    bare = re.sub(r"^```\w*\n(.*?)\n?```$", r"\1", text.strip(), flags=re.DOTALL)
    try:
        value: JsonValue = orjson.loads(bare)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, (dict, list)) else None


def _count_fields(value: JsonValue) -> Counter[tuple[str, str]]:
    """Return every leaf with its path; the order of a list is ignored."""
    return Counter((path, orjson.dumps(leaf).decode()) for path, leaf in _iter_leaves(value, ""))


def _iter_leaves(value: JsonValue, path: str) -> Iterator[tuple[str, JsonValue]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _iter_leaves(inner, f"{path}/{key}")
    elif isinstance(value, list) and value:
        for inner in value:
            yield from _iter_leaves(inner, f"{path}/*")
    else:
        yield path, value


def count_matching_fields(
    expected: JsonValue | None, actual: JsonValue | None
) -> tuple[int, int, int]:
    """Return the numbers of fields in both values, in `expected` and in `actual`.

    An answer that is not JSON (None) has no fields.
    """
    left = _count_fields(expected)
    right = Counter() if actual is None else _count_fields(actual)
    return sum((left & right).values()), sum(left.values()), sum(right.values())


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
