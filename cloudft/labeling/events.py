"""What people do to records, one line each: `labels-NAME.jsonl`, appended and never changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from cloudft.errors import BadDocument
from cloudft.storage.append_log import LogReader, append_line
from cloudft.storage.atomic_files import as_store_error
from cloudft.storage.documents import decode

Action = Literal["label", "reject", "skip", "undo"]
ACTIONS: tuple[Action, ...] = ("label", "reject", "skip", "undo")


class LabelEvent(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """One key of one person.

    `id` is the page's own: an event that it sends twice counts once. `undo` takes back the last
    event of the record `key`. `suggestion`, its `confidence` (0 to 1) and the digest of the `model`
    are what the person saw; with `is_blind` they saw none of it. `seconds` is the time from the
    sight of the record to the key.
    """

    id: str
    key: str
    action: Action
    label: str = ""
    at: str = ""
    seconds: float = 0.0
    suggestion: str | None = None
    confidence: float | None = None
    model: str | None = None
    is_blind: bool = False
    reason: str = ""
    person: str = ""


@dataclass
class PersonLabels:
    """What one person has done: for each record the events that count, the last one last."""

    stacks: dict[str, list[LabelEvent]] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    """Keys of the events that count, in their order."""
    seen_ids: set[str] = field(default_factory=set)
    seconds: list[float] = field(default_factory=list)
    """The time of each label and rejection, those that were taken back as well."""

    def apply(self, event: LabelEvent) -> None:
        """Add an event. A known id changes nothing, nor does an undo of nothing."""
        if event.id in self.seen_ids:
            return
        self.seen_ids.add(event.id)
        stack = self.stacks.setdefault(event.key, [])
        if event.action != "undo":
            stack.append(event)
            self.order.append(event.key)
            if event.action != "skip":
                self.seconds.append(event.seconds)
        elif stack:
            stack.pop()
            last = len(self.order) - 1 - self.order[::-1].index(event.key)
            del self.order[last]
        if not stack:
            del self.stacks[event.key]

    @property
    def current(self) -> dict[str, LabelEvent]:
        """Return the last event of each record, skips included."""
        return {key: stack[-1] for key, stack in self.stacks.items()}

    @property
    def decided(self) -> dict[str, LabelEvent]:
        """Return the label or the rejection of each record that has one."""
        return {key: event for key, event in self.current.items() if event.action != "skip"}

    @property
    def last_key(self) -> str | None:
        """Return the record that an undo brings back."""
        return self.order[-1] if self.order else None


def fold_events(events: Iterable[LabelEvent]) -> PersonLabels:
    """Return what these events amount to."""
    labels = PersonLabels()
    for event in events:
        labels.apply(event)
    return labels


class EventFile:
    """The events of one person on disk."""

    def __init__(self, path: Path) -> None:
        self.path, self.labels = path, PersonLabels()
        self._reader = LogReader(path)

    def refresh(self) -> PersonLabels:
        """Read what was added, and return all. Raise StoreError."""
        with as_store_error("can't read the labels", self.path):
            for event in parse_events(self._reader.read_new_lines(), self.path):
                self.labels.apply(event)
        return self.labels

    def append(self, event: LabelEvent) -> PersonLabels:
        """Save an event; it is on disk when this returns. Raise StoreError."""
        with as_store_error("can't save the label", self.path):
            append_line(self.path, msgspec.json.encode(event))
        return self.refresh()


def parse_events(lines: Iterable[tuple[int, bytes]], path: Path) -> Iterator[LabelEvent]:
    """Yield the events of lines; leave out a line that a crash has cut, or that is damaged."""
    for _, line in lines:
        try:
            yield decode(line, LabelEvent, file=path)
        except BadDocument:
            continue
