"""Summarize a project: who has labeled what, how well they agree, what a label costs."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import TypedDict

from cloudft.evaluate.human_review.agreement import nominal_alpha
from cloudft.evaluate.metrics.intervals import wilson_interval
from cloudft.evaluate.metrics.labels import normalize_text
from cloudft.labeling.decided import DecidedRecord, collect_votes, decide_records, event_value
from cloudft.labeling.events import PersonLabels
from cloudft.labeling.order import is_random
from cloudft.labeling.project import LabelProject

IDLE_GAP_S = 120.0
"""A label that took longer counts with the median: somebody was away."""


class LabelCost(TypedDict):
    """Time of labels: the median, and the total without idle gaps; None before the first."""

    labels: int
    medianSeconds: float | None
    totalSeconds: float


class PersonSummary(LabelCost):
    """What one person has done. `accepted` are labels that were what was suggested."""

    labeled: int
    rejected: int
    skipped: int


class ShareEstimate(TypedDict):
    """A share of the records that were drawn at random, with its 95 % Wilson interval."""

    right: int
    records: int
    share: float | None
    low: float | None
    high: float | None


class ProjectSummary(TypedDict):
    """A project's state. `agreement` is Krippendorff's alpha over `sharedRecords`."""

    project: str
    kind: str
    records: int
    decided: int
    rejected: int
    open: int
    remaining: int
    people: dict[str, PersonSummary]
    labels: dict[str, int]
    agreement: float | None
    sharedRecords: int
    suggestionsRight: ShareEstimate
    answersRight: ShareEstimate
    cost: LabelCost


def measure_cost(seconds: Sequence[float]) -> LabelCost:
    """Return what labels cost. A time that is longer than IDLE_GAP_S counts with the median."""
    worked = [value for value in seconds if value <= IDLE_GAP_S]
    median = statistics.median(worked) if worked else None
    idle = len(seconds) - len(worked)
    total = sum(worked) + idle * (IDLE_GAP_S if median is None else median)
    return {"labels": len(seconds), "medianSeconds": median, "totalSeconds": total}


def summarize_project(project: LabelProject) -> ProjectSummary:
    """Return the state of a project. Raise StoreError; UsageError without the extra `evaluate`."""
    people = project.people()
    decided, still_open = decide_records(project)
    votes = collect_votes(project)
    values: dict[str, dict[str, str]] = {name: {} for name in people}
    for key, by_person in votes.items():
        for name, event in by_person.items():
            values[name][key] = event_value(event)
    return {
        "project": project.name,
        "kind": project.settings.kind,
        "records": len(project.records.keys),
        "decided": len(decided),
        "rejected": sum(one.label is None for one in decided),
        "open": len(still_open),
        "remaining": len(project.records.keys) - len(votes),
        "people": {name: _summarize_person(labels) for name, labels in people.items()},
        "labels": dict(Counter(one.label for one in decided if one.label is not None))
        if project.settings.kind == "labels"
        else {},
        "agreement": nominal_alpha(values),
        "sharedRecords": sum(len(by_person) > 1 for by_person in votes.values()),
        "suggestionsRight": _estimate_suggestions(project, decided),
        "answersRight": _estimate_answers(project, decided),
        "cost": measure_cost([value for labels in people.values() for value in labels.seconds]),
    }


def _summarize_person(labels: PersonLabels) -> PersonSummary:
    actions = Counter(event.action for event in labels.current.values())
    return {
        "labeled": actions["label"],
        "rejected": actions["reject"],
        "skipped": actions["skip"],
        **measure_cost(labels.seconds),
    }


def _estimate_suggestions(project: LabelProject, decided: Sequence[DecidedRecord]) -> ShareEstimate:
    """Return how often the suggestion is what people say, of records that were drawn at random.

    Of fixed labels these are records whose suggestion nobody saw before.
    """
    right = []
    for one in decided:
        suggestion = project.suggestions.get(one.key)
        if suggestion is None or one.label is None or project.settings.kind == "check":
            continue
        if is_random(project.settings, one.key):
            right.append(normalize_text(suggestion.text) == normalize_text(one.label))
    return _estimate(right)


def _estimate_answers(project: LabelProject, decided: Sequence[DecidedRecord]) -> ShareEstimate:
    """Return how often the answer in the file is what people say, of records drawn at random."""
    right = []
    for one in decided:
        given = project.records.given.get(one.key)
        if given and is_random(project.settings, one.key):
            said = None if one.label is None else normalize_text(one.label)
            right.append(said in {normalize_text(answer) for answer in given})
    return _estimate(right)


def _estimate(right: Sequence[bool]) -> ShareEstimate:
    count, total = sum(right), len(right)
    low, high = wilson_interval(count, total) if total else (None, None)
    share = count / total if total else None
    return {"right": count, "records": total, "share": share, "low": low, "high": high}
