"""What kind of answers a job has: labels, JSON, or text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import orjson

from cloudft.data.staging.label_encoder import MAX_LABELS, MIN_RECORDS_PER_LABEL

TaskName = Literal["classification", "json", "text", "language-modelling"]
MAX_LABEL_LENGTH = 80
"""Characters of the longest answer that is taken for a label."""


@dataclass(frozen=True)
class Task:
    """What is asked for; `labels` in order, where the answers are labels."""

    name: TaskName
    labels: tuple[str, ...] = ()


def detect_task(
    references: Sequence[str],
    train_answers: Sequence[str] = (),
    *,
    requested: str = "auto",
    labels: Sequence[str] = (),
) -> Task:
    """The task that these answers are of, or the one that is `wanted`.

    Labels are at most 50 distinct short answers, each at least twice in the training data (without
    it, in the references); JSON is where every answer is an object or an array. Where the training
    data has all references as answers, the others are general records that were mixed in.
    """
    there = {text.strip() for text in references}
    known = [text for text in train_answers if text.strip() in there]
    if not known or {text.strip() for text in known} != there:
        known = list(train_answers) or list(references)
    if labels or requested == "classification":
        found = set(labels) or {text.strip() for text in (*known, *references)}
        return Task("classification", tuple(sorted(found)))
    if requested == "json" or (requested == "auto" and all(map(_is_json, (*known, *references)))):
        return Task("json")
    distinct = _find_labels(known)
    if requested == "auto" and distinct:
        return Task("classification", tuple(sorted(distinct | {t.strip() for t in references})))
    return Task("text")


def _find_labels(answers: Sequence[str]) -> set[str]:
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
