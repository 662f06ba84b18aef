"""Choose the records that a person labels next, and say why."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from cloudft.evaluate.metrics.labels import normalize_text
from cloudft.labeling.events import LabelEvent, PersonLabels
from cloudft.labeling.order import RankedRecord, Reason, is_random, is_shared
from cloudft.labeling.project import LabelProject
from cloudft.labeling.records import LabelRecord
from cloudft.labeling.suggestions import Suggestion

LEASE_S = 600.0
"""Seconds for which a record that a person was sent is sent to nobody else."""


@dataclass(frozen=True)
class QueuedRecord:
    """A record as it is shown to a person.

    With `is_blind` the suggestion is hidden: a person who has seen it agrees more often, and the
    records drawn at random are to measure how often it is right.
    """

    record: LabelRecord
    reason: Reason
    why: str
    suggestion: Suggestion | None
    is_blind: bool
    near: NearLabel | None
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class NearLabel:
    """What a near duplicate was labeled."""

    text: str
    label: str
    similarity: float


@dataclass
class LabelQueue:
    """Hands out the records of one project, to several people at once."""

    project: LabelProject
    _leases: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Key -> who has it, and until when."""

    def next_records(
        self, person: str, count: int, held: Collection[str] = ()
    ) -> list[QueuedRecord]:
        """Return the next records of a person, without those that their page `held` already.

        Records that were skipped come last. Raise StoreError, UsageError.
        """
        project = self.project
        with project.lock:
            own = project.labels_of(person)
            people = project.people()
            taken = self._taken(person, people)
            fresh: list[RankedRecord] = []
            skipped: list[RankedRecord] = []
            for ranked in project.order():
                if len(fresh) == count:
                    break
                event = own.stacks.get(ranked.key)
                if ranked.key in held or ranked.key in taken:
                    continue
                if event is None:
                    fresh.append(ranked)
                elif event[-1].action == "skip":
                    skipped.append(ranked)
            chosen = (fresh + skipped)[:count]
            end = time.monotonic() + LEASE_S
            self._leases |= {ranked.key: (person, end) for ranked in chosen}
            return [self.describe(ranked, people) for ranked in chosen]

    def get_record(self, person: str, key: str) -> QueuedRecord:
        """Return one record, such as that of an undo. Raise UsageError, StoreError."""
        with self.project.lock:
            ranked = next(
                (one for one in self.project.order() if one.key == key),
                RankedRecord(key, 0.0, "unranked"),
            )
            self._leases[key] = (person, time.monotonic() + LEASE_S)
            return self.describe(ranked, self.project.people())

    def remaining(self, person: str) -> int:
        """Return how many records this person has yet to label. Raise StoreError, UsageError."""
        with self.project.lock:
            done = self.project.labels_of(person).decided
            taken = self._taken(person, self.project.people(), leases=False)
            return sum(key not in done and key not in taken for key in self.project.records.keys)

    def _taken(
        self, person: str, people: Mapping[str, PersonLabels], *, leases: bool = True
    ) -> set[str]:
        """Return the records that others have labeled or are looking at, but for shared ones."""
        now, settings = time.monotonic(), self.project.settings
        taken = {
            key
            for name, labels in people.items()
            if name != person
            for key, event in labels.decided.items()
        }
        if leases:
            taken |= {k for k, (who, end) in self._leases.items() if who != person and end > now}
        return {key for key in taken if not is_shared(settings, key)}

    def describe(self, ranked: RankedRecord, people: Mapping[str, PersonLabels]) -> QueuedRecord:
        """Return a record with what is shown beside it. Raise UsageError, OSError."""
        project = self.project
        settings, key = project.settings, ranked.key
        record, suggestion = project.records.get(key), project.suggestions.get(key)
        is_blind = settings.kind == "labels" and is_random(settings, key)
        near = None if is_blind else self._near_label(key, people)
        why = explain(ranked, record, suggestion, project, near)
        return QueuedRecord(record, ranked.reason, why, suggestion, is_blind, near, settings.labels)

    def _near_label(self, key: str, people: Mapping[str, PersonLabels]) -> NearLabel | None:
        """Return the label of a record of the same group, the last one that was given."""
        groups = self.project.groups
        leader = groups.leader.get(key)
        latest: LabelEvent | None = None
        if leader is None or self.project.settings.kind != "labels":
            return None
        for labels in people.values():
            for other, event in labels.current.items():
                is_near = other != key and groups.leader.get(other) == leader
                if is_near and event.action == "label" and (not latest or event.at > latest.at):
                    latest = event
        if latest is None:
            return None
        # The similarity is known to the first one of the group only.
        ends = (groups.similarity.get(key, 1.0), groups.similarity.get(latest.key, 1.0))
        return NearLabel(self.project.records.get(latest.key).text, latest.label, min(ends))


def explain(
    ranked: RankedRecord,
    record: LabelRecord,
    suggestion: Suggestion | None,
    project: LabelProject,
    near: NearLabel | None,
) -> str:
    """Return in a sentence why this record is shown."""
    settings = project.settings
    if ranked.reason == "random":
        hidden = "; the suggestion is hidden until then" if settings.kind == "labels" else ""
        return f"Drawn at random: measures how often suggestions are right{hidden}."
    if ranked.reason == "contradiction":
        answers = " and ".join(f"\u201c{one}\u201d" for one in project.records.given[record.key])
        return f"The file has this prompt with {answers}."
    if ranked.reason == "near":
        return (
            "Nearly the same as a record before it." if near else "Near duplicates come together."
        )
    if suggestion is None:
        return "No suggestion yet: in random order, near duplicates together."
    return _explain_suggestion(ranked.reason, record, suggestion, settings.labels)


def _explain_suggestion(
    reason: Reason, record: LabelRecord, suggestion: Suggestion, labels: tuple[str, ...]
) -> str:
    sure = "" if suggestion.confidence is None else f" ({suggestion.confidence:.0%})"
    if reason == "doubtful" and suggestion.shares:
        return (
            f"Doubtful: the file says \u201c{record.given}\u201d, the tuned model"
            f" \u201c{suggestion.text}\u201d{sure}."
        )
    if reason == "doubtful":
        return f"The less likely the tuned model finds an answer, the earlier it is shown{sure}."
    if reason == "disagreement":
        return (
            f"The models disagree: tuned \u201c{suggestion.text}\u201d{sure}, base"
            f" \u201c{suggestion.base}\u201d."
        )
    if suggestion.shares:
        shares = sorted(zip(suggestion.shares, labels, strict=False), reverse=True)[:2]
        best = " and ".join(f"\u201c{label}\u201d {share:.0%}" for share, label in shares)
        return f"The less certain first: the tuned model gives {best}."
    return f"The less certain first: the tuned model is {suggestion.confidence or 0:.0%} sure."


def is_accepted(event: LabelEvent) -> bool:
    """Return whether a label is what was suggested."""
    return event.suggestion is not None and normalize_text(event.label) == normalize_text(
        event.suggestion
    )
