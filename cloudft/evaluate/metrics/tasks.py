"""Detect what kind of answers a job has: labels, JSON, or text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import orjson

from cloudft.data.staging.label_encoder import MAX_LABELS, MIN_RECORDS_PER_LABEL

TaskName = Literal["classification", "json", "text", "language-modelling"]
MAX_LABEL_LENGTH = 80
"""Longer answers, in characters, are not labels."""


@dataclass(frozen=True)
class Task:
    """A kind of answers. `labels` are sorted; empty where the answers are not labels."""

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
    distinct_references = {text.strip() for text in references}
    answers = [text for text in train_answers if text.strip() in distinct_references]
    if not answers or {text.strip() for text in answers} != distinct_references:
        answers = list(train_answers) or list(references)
    if labels or requested == "classification":
        known = set(labels) or {text.strip() for text in (*answers, *references)}
        return Task("classification", tuple(sorted(known)))
    if requested == "json" or (requested == "auto" and all(map(_is_json, (*answers, *references)))):
        return Task("json")
    found = _find_labels(answers)
    if requested == "auto" and found:
        return Task("classification", tuple(sorted(found | distinct_references)))
    return Task("text")


def _find_labels(answers: Sequence[str]) -> set[str]:
    """Return the distinct answers if they are labels, else nothing."""
    counts: dict[str, int] = {}
    for answer in answers:
        text = answer.strip()
        counts[text] = counts.get(text, 0) + 1
        if len(counts) > MAX_LABELS or len(text) > MAX_LABEL_LENGTH:
            return set()
    return set(counts) if counts and min(counts.values()) >= MIN_RECORDS_PER_LABEL else set()


def _is_json(text: str) -> bool:
    if text.lstrip()[:1] not in ("{", "["):
        return False
    try:
        return isinstance(orjson.loads(text), (dict, list))
    except orjson.JSONDecodeError:
        return False
