"""Detect what kind of answers a job has: labels, JSON, or text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cloudft.data.staging.label_encoder import MAX_LABELS, MIN_RECORDS_PER_LABEL
from cloudft.evaluate.metrics.json_values import parse_json_answer
from cloudft.evaluate.metrics.labels import match_label, normalize_text

TaskName = Literal["classification", "json", "text", "language-modelling"]
MAX_LABEL_LENGTH = 80
"""Longer answers, in characters, are not labels."""


@dataclass(frozen=True)
class Task:
    """A kind of answers.

    `labels` are sorted and in Unicode's form NFC; empty where the answers are not labels.
    """

    name: TaskName
    labels: tuple[str, ...] = ()


def detect_task(
    references: Sequence[str],
    train_answers: Sequence[str] = (),
    *,
    requested: str = "auto",
    labels: Sequence[str] = (),
) -> Task:
    """Return the task that the answers belong to, or the `requested` one.

    Labels are at most 50 distinct short answers, each at least twice in the training data (without
    training data, in the references). JSON means that every answer is an object or an array. When
    the training data contains all references as answers, its other answers are taken for general
    records that were mixed in.
    """
    distinct_references = set(map(normalize_text, references))
    train = list(map(normalize_text, train_answers))
    answers = [text for text in train if text in distinct_references]
    if set(answers) != distinct_references:
        answers = train or list(map(normalize_text, references))
    if labels or requested == "classification":
        known = set(map(normalize_text, labels)) or {*answers, *distinct_references}
        # A reference that is none of the listed labels is one of its own, which answers can mean.
        listed = tuple(sorted(known))
        unlisted = {text for text in distinct_references if match_label(text, listed) is None}
        return Task("classification", tuple(sorted(known | unlisted)))
    if requested == "json" or (requested == "auto" and all(map(_is_json, (*answers, *references)))):
        return Task("json")
    found = _find_labels(answers)
    if requested == "auto" and found:
        return Task("classification", tuple(sorted(found | distinct_references)))
    return Task("text")


def _find_labels(answers: Sequence[str]) -> set[str]:
    """Return the distinct answers if they are labels, else nothing."""
    counts: dict[str, int] = {}
    for text in answers:
        counts[text] = counts.get(text, 0) + 1
        if len(counts) > MAX_LABELS or len(text) > MAX_LABEL_LENGTH:
            return set()
    return set(counts) if counts and min(counts.values()) >= MIN_RECORDS_PER_LABEL else set()


def _is_json(text: str) -> bool:
    return text.lstrip()[:1] in ("{", "[") and parse_json_answer(text) is not None
