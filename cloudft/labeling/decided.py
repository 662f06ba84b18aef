"""Decide each record's label from what everybody has said: settled, unanimous, or by majority."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cloudft.labeling.events import LabelEvent
from cloudft.labeling.project import LabelProject

REJECTED = "\x00rejected"
"""The value of a rejection among labels, which hold no NUL."""

How = Literal["settled", "unanimous", "majority", "single"]


@dataclass(frozen=True)
class DecidedRecord:
    """The label of a record; None if it was rejected. `votes` are by person."""

    key: str
    label: str | None
    how: How
    votes: Mapping[str, LabelEvent]
    settled_by: LabelEvent | None = None


@dataclass(frozen=True)
class OpenRecord:
    """A record about which people disagree, without a majority or a settlement."""

    key: str
    votes: Mapping[str, LabelEvent]


def event_value(event: LabelEvent) -> str:
    """Return what an event says, as one value to compare."""
    return REJECTED if event.action == "reject" else event.label


def collect_votes(project: LabelProject) -> dict[str, dict[str, LabelEvent]]:
    """Return the labels and rejections of each record that is there, by key and person.

    Raise StoreError.
    """
    votes: dict[str, dict[str, LabelEvent]] = {}
    for person, labels in project.people().items():
        for key, event in labels.decided.items():
            if key in project.records:
                votes.setdefault(key, {})[person] = event
    return votes


def decide_records(project: LabelProject) -> tuple[list[DecidedRecord], list[OpenRecord]]:
    """Return the records with a label, and those that are open. Raise StoreError.

    A settlement counts as long as the votes that it has seen are the ones there are: a vote after
    it opens the record again unless it says the same.
    """
    settlements = project.decisions().decided
    decided: list[DecidedRecord] = []
    still_open: list[OpenRecord] = []
    for key, votes in collect_votes(project).items():
        one = _decide(key, votes, settlements.get(key))
        if isinstance(one, DecidedRecord):
            decided.append(one)
        else:
            still_open.append(one)
    return decided, still_open


def _decide(
    key: str, votes: Mapping[str, LabelEvent], settlement: LabelEvent | None
) -> DecidedRecord | OpenRecord:
    if settlement is not None:
        newer = [vote for vote in votes.values() if vote.at > settlement.at]
        if all(event_value(vote) == event_value(settlement) for vote in newer):
            return DecidedRecord(key, _label(settlement), "settled", votes, settlement)
    counts = Counter(event_value(vote) for vote in votes.values())
    value, most = counts.most_common(1)[0]
    if 2 * most <= len(votes):
        return OpenRecord(key, votes)
    how: How = "majority" if len(counts) > 1 else "unanimous" if len(votes) > 1 else "single"
    event = next(vote for vote in votes.values() if event_value(vote) == value)
    return DecidedRecord(key, _label(event), how, votes)


def _label(event: LabelEvent) -> str | None:
    return None if event.action == "reject" else event.label
