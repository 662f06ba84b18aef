"""The labeling projects that pages of this workbench use, each opened once, with its thread."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict

from cloudft.errors import UsageError
from cloudft.labeling.events import ACTIONS, Action, LabelEvent
from cloudft.labeling.project import LabelProject, open_project
from cloudft.labeling.queue import LabelQueue, QueuedRecord
from cloudft.labeling.settings import check_person_name
from cloudft.labeling.suggestions import MEASURES
from cloudft.labeling.summary import measure_cost
from cloudft.labeling.worker import SuggestionWorker
from cloudft.storage.home import Home
from cloudft.storage.store import utc_now

if TYPE_CHECKING:
    from cloudft.workbench.forms import Form

AHEAD = 3
"""Records that a page holds: the one that is shown, and those that the next keys show."""
MAX_SECONDS = 24 * 3600.0


class ShownSuggestion(TypedDict):
    """A suggestion as a page shows it. `shares` are the best labels with their likelihood."""

    text: str
    confidence: float | None
    base: str | None
    shares: list[tuple[str, float]]


class ShownNear(TypedDict):
    """A near duplicate and its label."""

    text: str
    label: str
    similarity: float


class ShownRecord(TypedDict):
    """A record as a page shows it."""

    key: str
    place: str
    turns: list[tuple[str, str]]
    given: str | None
    reason: str
    why: str
    isBlind: bool
    suggestion: ShownSuggestion | None
    near: ShownNear | None


class Progress(TypedDict):
    """What a person has done, and what is left for them."""

    labeled: int
    remaining: int
    medianSeconds: float | None
    totalSeconds: float
    suggestions: str


@dataclass
class LiveProject:
    """A project, its queue and its background work."""

    project: LabelProject
    queue: LabelQueue
    worker: SuggestionWorker

    def progress(self, person: str) -> Progress:
        """Return the person's progress. Raise StoreError."""
        labels = self.project.labels_of(person)
        cost = measure_cost(labels.seconds)
        return {
            "labeled": len(labels.decided),
            "remaining": self.queue.remaining(person),
            "medianSeconds": cost["medianSeconds"],
            "totalSeconds": cost["totalSeconds"],
            "suggestions": describe_worker(self.worker),
        }

    def next_records(self, person: str, held: Sequence[str] = ()) -> list[ShownRecord]:
        """Return the next records of a person. Raise StoreError, UsageError."""
        found = self.queue.next_records(person, AHEAD, held)
        return [show_record(one) for one in found]

    def updates(self, person: str, keys: Sequence[str]) -> list[ShownRecord]:
        """Return those of these records that have a suggestion by now. Raise StoreError."""
        known = self.project.suggestions
        return [
            show_record(self.queue.get_record(person, key))
            for key in keys
            if key in known and key in self.project.records
        ]

    def take(self, person: str, form: Form) -> tuple[LabelEvent, ShownRecord | None]:
        """Save what a page sends; return it, and the record that an undo brings back.

        Raise UsageError for what no page sends, StoreError.
        """
        event = self._read_event(check_person_name(person), form)
        if event.action == "undo" and not event.key:
            return event, None
        self.project.save_event(person, event)
        restored = None
        if event.action == "undo":
            restored = show_record(self.queue.get_record(person, event.key))
        return event, restored

    def _read_event(self, person: str, form: Form) -> LabelEvent:
        action = _read_action(form.get("action", "label"))
        key, label = form.get("key", ""), form.get("label", "")
        if action == "undo":
            key = key or self.project.labels_of(person).last_key or ""
        if key not in self.project.records and (key or action != "undo"):
            raise UsageError("there is no such record in this project", fix="reload the page.")
        settings = self.project.settings
        if action == "label":
            if settings.kind == "labels" and label not in settings.labels:
                raise UsageError(f"{label[:80]!r} is no label of this project", fix="choose one.")
            if not label.strip():
                raise UsageError("the label is empty", fix="write one, or reject the record.")
        event = LabelEvent(
            id=form.get("id", "")[:64] or f"{key}:{utc_now()}",
            key=key,
            action=action,
            label=label if action == "label" else "",
            at=utc_now(),
            seconds=_read_seconds(form.get("seconds", "")),
        )
        return event if action == "undo" else self._with_context(event, form.get("seen") == "1")

    def _with_context(self, event: LabelEvent, seen: bool) -> LabelEvent:
        """Return the event with what was suggested, and whether the person saw it."""
        import msgspec

        suggestion = self.project.suggestions.get(event.key)
        ranked = next((one for one in self.project.order() if one.key == event.key), None)
        return msgspec.structs.replace(
            event,
            suggestion=suggestion.text if suggestion else None,
            confidence=suggestion.confidence if suggestion else None,
            model=suggestion.model if suggestion else None,
            is_blind=not seen,
            reason=ranked.reason if ranked else "",
        )


@dataclass
class LiveLabels:
    """The open projects of one workbench."""

    home: Home
    is_read_only: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _open: dict[str, LiveProject] = field(default_factory=dict)

    def get(self, name: str) -> LiveProject:
        """Return a project, opened once. Raise UsageError for one that there is not."""
        with self._lock:
            if name not in self._open:
                project = open_project(self.home.labels, name)
                worker = SuggestionWorker(project, self.home, is_read_only=self.is_read_only)
                self._open[name] = LiveProject(project, LabelQueue(project), worker)
            live = self._open[name]
        live.project.refresh()
        return live


def describe_worker(worker: SuggestionWorker) -> str:
    """Return what the background work of a project is doing."""
    project = worker.project
    if worker.state == "failed":
        return f"No suggestions: {worker.message}. {worker.fix}".strip()
    if project.settings.job is None:
        return ""
    known = len(project.suggestions)
    if worker.is_read_only:
        return f"Suggestions: {known} of {len(project.records.keys)}, read-only"
    states = {
        "idle": "waiting",
        "grouping": "finding near duplicates",
        "loading": "loading the model",
        "suggesting": "computing",
        "paused": "paused",
    }
    if worker.state == "done" or known >= len(project.records.keys):
        return ""
    return f"Suggestions: {known} of {len(project.records.keys)}, {states[worker.state]}"


def show_record(one: QueuedRecord) -> ShownRecord:
    """Return a record as a page shows it: without the suggestion where it is hidden."""
    near: ShownNear | None = None
    if one.near is not None:
        near = {
            "text": one.near.text[:400],
            "label": one.near.label,
            "similarity": one.near.similarity,
        }
    return {
        "key": one.record.key,
        "place": f"{one.record.file.rpartition('/')[2]}:{one.record.line}",
        "turns": one.record.shown_turns,
        "given": None if one.is_blind else one.record.given,
        "reason": one.reason,
        "why": one.why,
        "isBlind": one.is_blind,
        "suggestion": None if one.is_blind else _show_suggestion(one),
        "near": near,
    }


SHOWN_SHARES = 4


def _show_suggestion(one: QueuedRecord) -> ShownSuggestion | None:
    suggestion = one.suggestion
    if suggestion is None:
        return None
    pairs = sorted(zip(suggestion.shares, one.labels, strict=False), reverse=True)
    return {
        "text": suggestion.text,
        "confidence": suggestion.confidence,
        "base": suggestion.base,
        "shares": [(label, share) for share, label in pairs[:SHOWN_SHARES]],
    }


def confidence_measure(project: LabelProject) -> str:
    """Return what the confidence of this project's suggestions is."""
    return MEASURES[project.settings.kind]


def _read_action(text: str) -> Action:
    action = next((one for one in ACTIONS if one == text), None)
    if action is None:
        raise UsageError(f"{text[:40]!r} is no action of a label", fix="reload the page.")
    return action


def _read_seconds(text: str) -> float:
    try:
        value = float(text or 0)
    except ValueError:
        return 0.0
    return min(max(0.0, value), MAX_SECONDS) if math.isfinite(value) else 0.0
