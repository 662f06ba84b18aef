"""A labeling project on disk, and what everybody has done in it.

CLOUDFT_HOME/labels/NAME/project.json        the data, the labels, the job that suggests
                         records.jsonl       the records as they were read; only appended
                         labels-PERSON.jsonl one line for each key of a person; only appended
                         decisions.jsonl     how disagreements were settled; only appended
                         suggestions.jsonl   what models made of records; may be removed
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from cloudft.errors import BadDocument, UsageError
from cloudft.labeling.events import EventFile, LabelEvent, PersonLabels
from cloudft.labeling.near_groups import NearGroups
from cloudft.labeling.order import RankedRecord, order_records
from cloudft.labeling.records import RecordFile, StoredRecord, encode_stored, read_source_records
from cloudft.labeling.settings import (
    ProjectSettings,
    check_person_name,
    check_project_name,
    choose_labels,
    read_settings,
)
from cloudft.labeling.suggestions import Suggestion
from cloudft.storage.append_log import LogReader, append_lines
from cloudft.storage.atomic_files import as_store_error, atomic_write, make_private_folder
from cloudft.storage.documents import decode
from cloudft.storage.store import utc_now
from cloudft.storage.typed_paths import read_typed_path

SETTINGS_FILE, RECORDS_FILE = "project.json", "records.jsonl"
SUGGESTIONS_FILE, DECISIONS_FILE = "suggestions.jsonl", "decisions.jsonl"
PERSON_PREFIX = "labels-"
QUICK_ORDER_S = 0.02
"""Seconds up to which the order is renewed while a page waits."""


def create_project(root: Path, settings: ProjectSettings) -> LabelProject:
    """Create a project and read its records. `settings.labels` may be empty: the data's are taken.

    Raise UsageError for a name that is taken or no name, for files without records and for labels
    that are none; CheckFailed for files that can't be read; StoreError.
    """
    folder = root / check_project_name(settings.name)
    if (folder / SETTINGS_FILE).exists():
        raise UsageError(
            f"there is a labeling project {settings.name!r} already", fix="choose another name."
        )
    remote = next((file for file in settings.files if file.startswith("s3://")), None)
    if remote is not None:
        raise UsageError(f"{remote} is not on this machine", fix="copy it here: aws s3 cp.")
    files = tuple(str(read_typed_path(file).resolve()) for file in settings.files)
    settings = msgspec.structs.replace(settings, files=files, created_at=utc_now())
    found = list(read_source_records(settings))
    if not found:
        raise UsageError(f"no records in {', '.join(files)}", fix="name another file.")
    answers = [given for _, given in found if given is not None]
    if settings.kind == "labels":
        labels = choose_labels(settings.labels, answers)
        settings = msgspec.structs.replace(settings, labels=labels)
    elif settings.kind == "check" and not answers:
        raise UsageError("the records have no answers to check", fix="use the kind `text`.")
    with as_store_error("can't create the labeling project", folder):
        make_private_folder(folder)
        # The settings last: a folder without them is no project, and is written again.
        atomic_write(folder / RECORDS_FILE, b"".join(map(_as_line, _once_each(found))))
        content = msgspec.json.format(msgspec.json.encode(settings), indent=2)
        atomic_write(folder / SETTINGS_FILE, content)
    return LabelProject(folder)


def _once_each(found: Sequence[tuple[StoredRecord, str | None]]) -> list[StoredRecord]:
    seen: dict[tuple[str, str | None], StoredRecord] = {}
    for record, given in found:
        seen.setdefault((record.key, given), record)
    return list(seen.values())


def _as_line(record: StoredRecord) -> bytes:
    return encode_stored([record])[0] + b"\n"


def open_project(root: Path, name: str) -> LabelProject:
    """Return a project. Raise UsageError for a name that there is not, BadDocument, StoreError."""
    folder = root / check_project_name(name)
    if not (folder / SETTINGS_FILE).is_file():
        raise UsageError(
            f"there is no labeling project {name!r}",
            fix=f"cloudft label create {name} FILE, or open Label in `cloudft ui`.",
        )
    return LabelProject(folder)


def list_projects(root: Path) -> list[str]:
    """Return the names of all projects."""
    return sorted(path.parent.name for path in root.glob(f"*/{SETTINGS_FILE}"))


@dataclass
class LabelProject:
    """A project and what is known of it, read again as its files grow. Thread-safe."""

    folder: Path
    groups: NearGroups = field(default_factory=NearGroups)

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        with as_store_error("can't read the labeling project", self.folder):
            self.settings = read_settings(self.folder / SETTINGS_FILE)
        self.records = RecordFile(self.folder / RECORDS_FILE, self.settings)
        self.suggestions: dict[str, Suggestion] = {}
        self._suggestion_reader = LogReader(self.folder / SUGGESTIONS_FILE)
        self._people: dict[str, EventFile] = {}
        self._decisions = EventFile(self.folder / DECISIONS_FILE)
        self._order: list[RankedRecord] = []
        self._ordered: tuple[int, int, int] = (-1, -1, -1)
        self._order_took_s = 0.0
        self.refresh()

    @property
    def name(self) -> str:
        """Return the project's name."""
        return self.settings.name

    def refresh(self) -> None:
        """Read what was added to the project's files. Raise StoreError."""
        with self.lock, as_store_error("can't read the labeling project", self.folder):
            self.records.refresh()
            for _, line in self._suggestion_reader.read_new_lines():
                try:
                    one = decode(line, Suggestion, file=self._suggestion_reader.path)
                except BadDocument:
                    continue  # cut by a crash
                self.suggestions[one.key] = one

    def add_new_records(self) -> int:
        """Add the records that were appended to the project's files; return their number.

        Nothing is removed. Raise CheckFailed, UsageError, StoreError.
        """
        found = list(read_source_records(self.settings))
        with self.lock, as_store_error("can't save the records", self.folder):
            self.records.refresh()
            return self.records.add(found)

    def save_suggestions(self, suggestions: Sequence[Suggestion]) -> None:
        """Keep suggestions. Raise StoreError."""
        with as_store_error("can't save the suggestions", self.folder):
            append_lines(
                self.folder / SUGGESTIONS_FILE, [msgspec.json.encode(one) for one in suggestions]
            )
        self.refresh()

    def people(self) -> dict[str, PersonLabels]:
        """Return what each person has done. Raise StoreError."""
        with self.lock:
            for path in sorted(self.folder.glob(f"{PERSON_PREFIX}*.jsonl")):
                self._event_file(path.stem.removeprefix(PERSON_PREFIX))
            return {
                name: labels
                for name, file in self._people.items()
                if (labels := file.refresh()).seen_ids
            }

    def labels_of(self, person: str) -> PersonLabels:
        """Return what one person has done. Raise UsageError for no name, StoreError."""
        with self.lock:
            return self._event_file(check_person_name(person)).refresh()

    def save_event(self, person: str, event: LabelEvent) -> PersonLabels:
        """Append an event of a person; it is on disk when this returns. Raise StoreError."""
        with self.lock:
            return self._event_file(check_person_name(person)).append(event)

    def decisions(self) -> PersonLabels:
        """Return how disagreements were settled. Raise StoreError."""
        with self.lock:
            return self._decisions.refresh()

    def save_decision(self, event: LabelEvent) -> PersonLabels:
        """Append how a disagreement is settled, by `event.person`. Raise StoreError."""
        with self.lock:
            return self._decisions.append(event)

    def order(self) -> list[RankedRecord]:
        """Return the records in the order in which they are labeled, as far as is known now.

        Of many records the order is renewed by `reorder` alone, which no key waits for.
        """
        with self.lock:
            state = self._order_inputs()
            is_new = state[0] != self._ordered[0]
        if is_new or (state != self._ordered and self._order_took_s < QUICK_ORDER_S):
            self.reorder()
        return self._order

    def reorder(self) -> None:
        """Order the records by all suggestions and groups that there are now."""
        with self.lock:
            state, keys = self._order_inputs(), list(self.records.keys)
            given, suggestions = dict(self.records.given), dict(self.suggestions)
        if state == self._ordered:
            return
        started = time.monotonic()
        order = order_records(keys, given, suggestions, self.groups, self.settings)
        with self.lock:
            self._order, self._ordered = order, state
            self._order_took_s = time.monotonic() - started

    def _order_inputs(self) -> tuple[int, int, int]:
        return len(self.records.keys), len(self.suggestions), len(self.groups.leader)

    def _event_file(self, person: str) -> EventFile:
        if person not in self._people:
            self._people[person] = EventFile(self.folder / f"{PERSON_PREFIX}{person}.jsonl")
        return self._people[person]
