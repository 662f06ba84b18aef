"""Answers held against their references. The metrics are the libraries' own; all are 0 to 1.

Accuracy, F1 and confusion: scikit-learn. ROUGE: rouge-score (F-measure, stemmed). BLEU and chrF:
sacrebleu, divided by 100.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson

from cloudft.errors import UsageError
from cloudft.evaluate.metrics.tasks import Task

HEADLINE_METRIC: Mapping[str, str] = {
    "classification": "accuracy",
    "json": "fieldF1",
    "text": "chrf",
    "language-modelling": "bitsPerByte",
}
"""The headline of each task."""
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
"""How an answer begins that declines."""
STRIPPED_CHARACTERS = " \t\r\n\"'`*.,;:!?()[]"


def extract_label(text: str, labels: Sequence[str]) -> str | None:
    """The label that an answer means, None when it is none or several.

    White space, case, quotes and punctuation around it do not count. An answer that is no label
    itself means the one label whose words stand in its first line.
    """
    known = _normalized_labels(tuple(labels))
    whole = _normalize(text)
    if whole in known:
        return known[whole]
    lines = text.strip().splitlines()
    first = f" {_words_only(lines[0])} " if lines else ""
    named = {label for plain, label in known.items() if f" {_words_only(plain)} " in first}
    # "not_delivered" holds "delivered": of labels within labels, the longer one is meant.
    outer = {
        a for a in named if not any(a != b and _words_only(a) in _words_only(b) for b in named)
    }
    return outer.pop() if len(outer) == 1 else None


@lru_cache(maxsize=8)
def _normalized_labels(labels: tuple[str, ...]) -> dict[str, str]:
    return {_normalize(label): label for label in labels}


def _normalize(text: str) -> str:
    return " ".join(text.strip(STRIPPED_CHARACTERS).casefold().split())


def _words_only(text: str) -> str:
    """Words alone; what joins the words of a name stays."""
    return " ".join(re.findall(r"[\w-]+", text.casefold()))


def score_record(task: Task, reference: str, text: str) -> tuple[float, bool | None]:
    """A record's score, 0 to 1, and whether it is right where that can be said."""
    if task.name == "classification":
        right = extract_label(text, task.labels) == extract_label(reference, task.labels)
        return float(right), right
    if task.name == "json":
        wanted, found = parse_json_answer(reference), parse_json_answer(text)
        if found is None:
            return 0.0, False
        score = _f1(*_count_matches(_count_fields(wanted), _count_fields(found)))
        return score, wanted == found
    return _sentence_chrf(reference, text), reference.strip() == text.strip()


def aggregate_metrics(
    task: Task, references: Sequence[str], texts: Sequence[str], *, truncated: Sequence[bool]
) -> dict[str, float]:
    """Every metric of a task, over all records. `cut` tells which answers ran out of tokens."""
    ways: Mapping[str, Callable[..., dict[str, float]]] = {
        "classification": _classification_metrics,
        "json": _json_metrics,
        "text": _text_metrics,
    }
    return ways[task.name](task, references, texts) | _format_metrics(references, texts, truncated)


def _format_metrics(
    references: Sequence[str], texts: Sequence[str], cut: Sequence[bool]
) -> dict[str, float]:
    """What answers look like, whatever they say."""
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
        "cutShare": sum(cut) / count,
        "refusalShare": refused / count,
        "lengthRatio": math.fsum(ratios) / count,
    }


def _classification_metrics(
    task: Task, references: Sequence[str], texts: Sequence[str]
) -> dict[str, float]:
    metrics = import_library("sklearn.metrics", "scikit-learn")
    truth = [extract_label(r, task.labels) or r.strip() for r in references]
    said = [extract_label(t, task.labels) or NO_LABEL for t in texts]
    there = sorted(set(truth))
    pairs = list(zip(references, texts, strict=True))

    def f1(average: str) -> float:
        return float(metrics.f1_score(truth, said, labels=there, average=average, zero_division=0))

    return {
        "accuracy": float(metrics.accuracy_score(truth, said)),
        "macroF1": f1("macro"),
        "microF1": f1("micro"),
        "exactMatch": sum(r.strip() == t.strip() for r, t in pairs) / len(pairs),
        "noLabelShare": said.count(NO_LABEL) / len(said),
    }


def _json_metrics(task: Task, references: Sequence[str], texts: Sequence[str]) -> dict[str, float]:
    wanted, found = (
        [parse_json_answer(r) for r in references],
        [parse_json_answer(t) for t in texts],
    )
    hits = total_wanted = total_found = 0
    for a, b in zip(wanted, found, strict=True):
        h, w, f = count_matching_fields(a, b)
        hits, total_wanted, total_found = hits + h, total_wanted + w, total_found + f
    count = len(texts)
    equal = sum(a == b and b is not None for a, b in zip(wanted, found, strict=True))
    return {
        "fieldF1": _f1(hits, total_wanted, total_found),
        "exactMatch": equal / count,
        "validShare": sum(value is not None for value in found) / count,
    }


def _text_metrics(task: Task, references: Sequence[str], texts: Sequence[str]) -> dict[str, float]:
    sacrebleu = import_library("sacrebleu", "sacrebleu")
    answers = list(texts)
    scored = [rouge_scorer().score(r, t) for r, t in zip(references, answers, strict=True)]
    pairs = list(zip(references, answers, strict=True))

    def mean(name: str) -> float:
        return math.fsum(one[name].fmeasure for one in scored) / len(scored)

    return {
        "chrf": sacrebleu.corpus_chrf(answers, [list(references)]).score / 100,
        "bleu": sacrebleu.corpus_bleu(answers, [list(references)]).score / 100,
        "rouge1": mean("rouge1"),
        "rouge2": mean("rouge2"),
        "rougeL": mean("rougeL"),
        "exactMatch": sum(r.strip() == t.strip() for r, t in pairs) / len(pairs),
    }


@lru_cache(maxsize=1)
def rouge_scorer() -> Any:
    """The scorer of ROUGE-1, -2 and -L, with stems."""
    scorer = import_library("rouge_score.rouge_scorer", "rouge-score")
    return scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)


def _sentence_chrf(reference: str, text: str) -> float:
    sacrebleu = import_library("sacrebleu", "sacrebleu")
    return float(sacrebleu.sentence_chrf(text, [reference]).score) / 100


def confusion_matrix(
    labels: Sequence[str], references: Sequence[str], texts: Sequence[str]
) -> dict[str, Any]:
    """How often each label (a row) was answered as which (a column); the last is no label."""
    metrics = import_library("sklearn.metrics", "scikit-learn")
    names = [*labels, NO_LABEL]
    truth = [extract_label(r, labels) or NO_LABEL for r in references]
    said = [extract_label(t, labels) or NO_LABEL for t in texts]
    matrix = metrics.confusion_matrix(truth, said, labels=names)
    return {"labels": names, "matrix": matrix.tolist()}


def parse_json_answer(text: str) -> Any:
    """The JSON object or array that an answer is, in a code fence or bare; None if it is none."""
    bare = re.sub(r"^```\w*\n(.*?)\n?```$", r"\1", text.strip(), flags=re.DOTALL)
    try:
        value = orjson.loads(bare)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, (dict, list)) else None


def _count_fields(value: Any) -> Counter[tuple[str, str]]:
    """Every leaf with its path; of a list the order does not count."""
    return Counter((path, orjson.dumps(leaf).decode()) for path, leaf in _iter_leaves(value, ""))


def _iter_leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _iter_leaves(inner, f"{path}/{key}")
    elif isinstance(value, list) and value:
        for inner in value:
            yield from _iter_leaves(inner, f"{path}/*")
    else:
        yield path, value


def count_matching_fields(wanted: Any, found: Any) -> tuple[int, int, int]:
    """Fields that both have, and those of each; an answer that is no JSON has none."""
    return _count_matches(
        _count_fields(wanted), Counter() if found is None else _count_fields(found)
    )


def _count_matches(
    wanted: Counter[tuple[str, str]], found: Counter[tuple[str, str]]
) -> tuple[int, int, int]:
    return sum((wanted & found).values()), sum(wanted.values()), sum(found.values())


def _f1(hits: int, wanted: int, found: int) -> float:
    """2 x hits / (wanted + found): the harmonic mean of precision and recall."""
    return 2 * hits / (wanted + found) if wanted + found else 1.0


def import_library(name: str, distribution: str) -> Any:
    """A module of the extra `evaluate`. Raises UsageError when it is not installed."""
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise UsageError(
            f"scoring needs {distribution}, which is not installed",
            fix="pip install 'cloudft[evaluate]'",
        ) from error
