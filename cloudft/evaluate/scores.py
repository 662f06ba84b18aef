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
from cloudft.evaluate.tasks import Task

METRIC: Mapping[str, str] = {
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
REFUSALS = (
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
AROUND = " \t\r\n\"'`*.,;:!?()[]"


def label_of(text: str, labels: Sequence[str]) -> str | None:
    """The label that an answer means, None when it is none or several.

    White space, case, quotes and punctuation around it do not count. An answer that is no label
    itself means the one label whose words stand in its first line.
    """
    known = _known(tuple(labels))
    whole = _plain(text)
    if whole in known:
        return known[whole]
    lines = text.strip().splitlines()
    first = f" {_spaced(lines[0])} " if lines else ""
    named = {label for plain, label in known.items() if f" {_spaced(plain)} " in first}
    # "not_delivered" holds "delivered": of labels within labels, the longer one is meant.
    outer = {a for a in named if not any(a != b and _spaced(a) in _spaced(b) for b in named)}
    return outer.pop() if len(outer) == 1 else None


@lru_cache(maxsize=8)
def _known(labels: tuple[str, ...]) -> dict[str, str]:
    return {_plain(label): label for label in labels}


def _plain(text: str) -> str:
    return " ".join(text.strip(AROUND).casefold().split())


def _spaced(text: str) -> str:
    """Words alone; what joins the words of a name stays."""
    return " ".join(re.findall(r"[\w-]+", text.casefold()))


def score_record(task: Task, reference: str, text: str) -> tuple[float, bool | None]:
    """A record's score, 0 to 1, and whether it is right where that can be said."""
    if task.name == "classification":
        right = label_of(text, task.labels) == label_of(reference, task.labels)
        return float(right), right
    if task.name == "json":
        wanted, found = parsed(reference), parsed(text)
        if found is None:
            return 0.0, False
        score = _f1(*_counts(_fields(wanted), _fields(found)))
        return score, wanted == found
    return _chrf(reference, text), reference.strip() == text.strip()


def totals(
    task: Task, references: Sequence[str], texts: Sequence[str], *, cut: Sequence[bool]
) -> dict[str, float]:
    """Every metric of a task, over all records. `cut` tells which answers ran out of tokens."""
    ways: Mapping[str, Callable[..., dict[str, float]]] = {
        "classification": _classified,
        "json": _structured,
        "text": _written,
    }
    return ways[task.name](task, references, texts) | _form(references, texts, cut)


def _form(references: Sequence[str], texts: Sequence[str], cut: Sequence[bool]) -> dict[str, float]:
    """What answers look like, whatever they say."""
    count = len(texts)
    ratios = [
        len(text.strip()) / max(1, len(reference.strip()))
        for reference, text in zip(references, texts, strict=True)
    ]
    refused = sum(
        text.strip().casefold().replace("\u2019", "'").startswith(REFUSALS) for text in texts
    )
    return {
        "emptyShare": sum(not text.strip() for text in texts) / count,
        "cutShare": sum(cut) / count,
        "refusalShare": refused / count,
        "lengthRatio": math.fsum(ratios) / count,
    }


def _classified(task: Task, references: Sequence[str], texts: Sequence[str]) -> dict[str, float]:
    metrics = library("sklearn.metrics", "scikit-learn")
    truth = [label_of(r, task.labels) or r.strip() for r in references]
    said = [label_of(t, task.labels) or NO_LABEL for t in texts]
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


def _structured(task: Task, references: Sequence[str], texts: Sequence[str]) -> dict[str, float]:
    wanted, found = [parsed(r) for r in references], [parsed(t) for t in texts]
    hits = total_wanted = total_found = 0
    for a, b in zip(wanted, found, strict=True):
        h, w, f = field_counts(a, b)
        hits, total_wanted, total_found = hits + h, total_wanted + w, total_found + f
    count = len(texts)
    equal = sum(a == b and b is not None for a, b in zip(wanted, found, strict=True))
    return {
        "fieldF1": _f1(hits, total_wanted, total_found),
        "exactMatch": equal / count,
        "validShare": sum(value is not None for value in found) / count,
    }


def _written(task: Task, references: Sequence[str], texts: Sequence[str]) -> dict[str, float]:
    sacrebleu = library("sacrebleu", "sacrebleu")
    answers = list(texts)
    scored = [rouge().score(r, t) for r, t in zip(references, answers, strict=True)]
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
def rouge() -> Any:
    """The scorer of ROUGE-1, -2 and -L, with stems."""
    scorer = library("rouge_score.rouge_scorer", "rouge-score")
    return scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)


def _chrf(reference: str, text: str) -> float:
    sacrebleu = library("sacrebleu", "sacrebleu")
    return float(sacrebleu.sentence_chrf(text, [reference]).score) / 100


def confusion(
    labels: Sequence[str], references: Sequence[str], texts: Sequence[str]
) -> dict[str, Any]:
    """How often each label (a row) was answered as which (a column); the last is no label."""
    metrics = library("sklearn.metrics", "scikit-learn")
    names = [*labels, NO_LABEL]
    truth = [label_of(r, labels) or NO_LABEL for r in references]
    said = [label_of(t, labels) or NO_LABEL for t in texts]
    matrix = metrics.confusion_matrix(truth, said, labels=names)
    return {"labels": names, "matrix": matrix.tolist()}


def parsed(text: str) -> Any:
    """The JSON object or array that an answer is, in a code fence or bare; None if it is none."""
    bare = re.sub(r"^```\w*\n(.*?)\n?```$", r"\1", text.strip(), flags=re.DOTALL)
    try:
        value = orjson.loads(bare)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, (dict, list)) else None


def _fields(value: Any) -> Counter[tuple[str, str]]:
    """Every leaf with its path; of a list the order does not count."""
    return Counter((path, orjson.dumps(leaf).decode()) for path, leaf in _leaves(value, ""))


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}/{key}")
    elif isinstance(value, list) and value:
        for inner in value:
            yield from _leaves(inner, f"{path}/*")
    else:
        yield path, value


def field_counts(wanted: Any, found: Any) -> tuple[int, int, int]:
    """Fields that both have, and those of each; an answer that is no JSON has none."""
    return _counts(_fields(wanted), Counter() if found is None else _fields(found))


def _counts(
    wanted: Counter[tuple[str, str]], found: Counter[tuple[str, str]]
) -> tuple[int, int, int]:
    return sum((wanted & found).values()), sum(wanted.values()), sum(found.values())


def _f1(hits: int, wanted: int, found: int) -> float:
    """2 x hits / (wanted + found): the harmonic mean of precision and recall."""
    return 2 * hits / (wanted + found) if wanted + found else 1.0


def library(name: str, distribution: str) -> Any:
    """A module of the extra `evaluate`. Raises UsageError when it is not installed."""
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise UsageError(
            f"scoring needs {distribution}, which is not installed",
            fix="pip install 'cloudft[evaluate]'",
        ) from error
