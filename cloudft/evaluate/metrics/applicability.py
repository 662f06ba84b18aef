"""Find the metrics that mean nothing for a job's references, with the reason.

A metric of similarity is left out where an answer equal to its reference would not get the full
score: a difference of such figures would compare the references' form, not the answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from cloudft.evaluate.metrics.labels import normalize_text
from cloudft.evaluate.metrics.scores import import_library, rouge_scorer
from cloudft.evaluate.metrics.tasks import Task

FULL_SCORE = 1 - 1e-9
BLEU_WORDS = 4
"""BLEU compares sequences of up to this number of words."""
MIN_BLEU_SHARE = 0.5
"""BLEU means something where at least this share of the references has so many words."""
MAX_OTHER_LETTERS = 0.1
"""The share of letters that ROUGE may skip: it reads the letters a to z alone."""


def find_meaningless_metrics(task: Task, references: Sequence[str]) -> dict[str, str]:
    """Return the metrics of a task that mean nothing for these references, with the reason."""
    reasons: dict[str, str] = {}
    if not any(reference.strip() for reference in references):
        reasons["lengthRatio"] = "every reference is empty"
    if task.name == "text":
        texts = list(map(normalize_text, references))
        reasons |= dict(_rouge_reasons(texts))
        reasons |= dict(_bleu_reason(texts))
    return reasons


def _rouge_reasons(references: Sequence[str]) -> Iterator[tuple[str, str]]:
    letters = [c for text in references for c in text if c.isalpha()]
    others = sum(not letter.isascii() for letter in letters)
    scored = [rouge_scorer().score(text, text) for text in references]
    for name in ("rouge1", "rouge2", "rougeL"):
        full = fmean(score[name].fmeasure for score in scored)
        if letters and others > MAX_OTHER_LETTERS * len(letters):
            yield (
                name,
                (
                    f"it reads the letters a to z alone, and {others / len(letters):.0%} of the"
                    " references' letters are others"
                ),
            )
        elif full < FULL_SCORE:
            yield (
                name,
                f"answers equal to these references would score {full:.2f}: too few words",
            )


def _bleu_reason(references: Sequence[str]) -> Iterator[tuple[str, str]]:
    sacrebleu = import_library("sacrebleu", "sacrebleu")
    full = float(sacrebleu.corpus_bleu(list(references), [list(references)]).score) / 100
    if full < FULL_SCORE:
        yield "bleu", f"answers equal to these references would score {full:.2f}: too few words"
        return
    long = sum(_count_words(text) >= BLEU_WORDS for text in references)
    if long < MIN_BLEU_SHARE * len(references):
        yield (
            "bleu",
            f"it compares sequences of {BLEU_WORDS} words, and {len(references) - long} of"
            f" {len(references)} references have fewer",
        )


def _count_words(text: str) -> int:
    """Return how many words sacrebleu's default tokenizer finds, which splits off punctuation."""
    tokenizers = import_library("sacrebleu.tokenizers.tokenizer_13a", "sacrebleu")
    return len(str(tokenizers.Tokenizer13a()(text)).split())
