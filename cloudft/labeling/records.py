"""The records of a project: what is labeled, by a digest of its content.

They are kept in the project's folder as they were read. A file that is appended to, moved or
removed later costs no label.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import orjson

from cloudft.backends.answer_cache import cache_key, prompt_to_json
from cloudft.data.findings import Findings
from cloudft.data.formats.recognizer import parse_record
from cloudft.data.formats.record import (
    BadRecord,
    Conversation,
    Document,
    JsonObject,
    PreferencePair,
    PromptWithReference,
    Turn,
)
from cloudft.data.formats.reinforcement import NAME as UNANSWERED
from cloudft.data.sources.row_reader import ReadContext, read_rows
from cloudft.data.sources.source_files import SourceResolver
from cloudft.errors import BadDocument, CheckFailed, UsageError
from cloudft.inference import Prompt
from cloudft.jobs.prompts import prompt_of_record
from cloudft.labeling.settings import Kind, ProjectSettings
from cloudft.storage.append_log import LogReader, append_lines
from cloudft.storage.documents import decode

PAIR_KEYS = frozenset({"prompt", "completion", "system"})


class StoredRecord(msgspec.Struct):
    """A line of `records.jsonl`: a record as it was read, with its place."""

    key: str
    file: str
    line: int
    value: JsonObject


@dataclass(frozen=True)
class LabelRecord:
    """One record to label. `given` is the answer that it has, None where it has none."""

    key: str
    file: str
    line: int
    conversation: Conversation
    given: str | None

    @property
    def prompt(self) -> Prompt:
        """Return what a model answers."""
        answered = self.answered_by("-")
        return prompt_of_record(answered, raw=False).prompt

    @property
    def shown_turns(self) -> list[tuple[str, str]]:
        """Return role and text of each turn of the prompt, the system prompt first."""
        system = [("system", text) for text in self.conversation.system]
        turns = self.conversation.turns
        return [*system, *((turn.role, "\n".join(turn.all_texts)) for turn in turns)]

    @property
    def text(self) -> str:
        """Return the prompt as one text."""
        return "\n".join(text for role, text in self.shown_turns if role != "system")

    def answered_by(self, answer: str) -> Conversation:
        """Return the conversation that ends with this answer."""
        known = self.conversation
        turns = (*known.turns, Turn("assistant", (answer,)))
        return Conversation(known.format, known.system, turns, tools=known.tools)


def parse_label_record(
    value: JsonObject, columns: Mapping[str, str]
) -> tuple[Conversation, str | None]:
    """Return the prompt of a raw record, and its answer if it has one.

    A text without labels is a prompt. Raise BadRecord.
    """
    prompt_alone = _unanswered_pair(value, columns)
    if prompt_alone is not None:
        return prompt_alone, None
    record = parse_record(value, columns, UNANSWERED)
    if isinstance(record, Document):
        return Conversation(record.format, (), (Turn("user", (record.text,)),)), None
    if isinstance(record, PreferencePair):
        raise BadRecord(
            "WrongTask",
            "a pair of answers has nothing to label",
            "name a file of prompts, or of prompts with one answer each",
        )
    if isinstance(record, PromptWithReference):
        reference = record.reference
        given = reference if isinstance(reference, str) else None
        return Conversation(record.format, record.system, record.turns, tools=record.tools), given
    prompt = Conversation(record.format, record.system, record.turns[:-1], tools=record.tools)
    return prompt, record.answer


def _unanswered_pair(value: JsonObject, columns: Mapping[str, str]) -> Conversation | None:
    """Return the prompt of a row of prompts whose answers are missing; None for another record."""
    names = columns or {key: key for key in value}
    if not {"prompt"} <= set(names) <= PAIR_KEYS or (not columns and set(value) != set(names)):
        return None
    pair = {key: value.get(column) for key, column in names.items()}
    prompt, system = pair["prompt"], pair.get("system")
    if (
        not isinstance(prompt, str)
        or not prompt.strip()
        or str(pair.get("completion") or "").strip()
    ):
        return None
    heads = (system,) if isinstance(system, str) and system.strip() else ()
    return Conversation("prompt-completion", heads, (Turn("user", (prompt,)),))


def digest_record(conversation: Conversation, given: str | None, kind: Kind) -> str:
    """Return the key of a record: of its prompt, and of its answer where that is what is judged."""
    record = LabelRecord("", "", 0, conversation, None)
    return cache_key(prompt_to_json(record.prompt), given if kind != "labels" else None)


def read_source_records(
    settings: ProjectSettings,
) -> Iterator[tuple[StoredRecord, str | None]]:
    """Yield every record of the project's files with its answer.

    Raise CheckFailed with all findings when a record can't be used, UsageError.
    """
    findings = Findings()
    sources = SourceResolver(Path("/"), findings).resolve("FILE", settings.files)
    for source in sources:
        context = ReadContext(source, findings, columns=settings.columns)
        for row in read_rows(context):
            try:
                conversation, given = parse_label_record(row.value, settings.columns)
                key = digest_record(conversation, given, settings.kind)
            except BadRecord as bad:
                context.add_bad_record(bad, row.line)
                continue
            name = source.display_name
            yield StoredRecord(key, name, row.line, row.value), given
    if findings.count_errors():
        listed = findings.all()
        raise CheckFailed(next(f.message for f in listed if f.severity == "error"), listed)


def encode_stored(records: Sequence[StoredRecord]) -> list[bytes]:
    """Return the lines of records."""
    return [orjson.dumps(msgspec.structs.asdict(one), default=str) for one in records]


class RecordFile:
    """The records of a project on disk, by key; their texts are read when they are needed."""

    def __init__(self, path: Path, settings: ProjectSettings) -> None:
        self.path, self._settings = path, settings
        self.keys: list[str] = []
        self.given: dict[str, tuple[str, ...]] = {}
        """The answers that records of this key have, each once."""
        self._offsets: dict[str, int] = {}
        self._reader = LogReader(path)

    def refresh(self) -> None:
        """Read what was added. Raise OSError."""
        for offset, line in self._reader.read_new_lines():
            try:
                record = self._parse(line)
            except (BadDocument, BadRecord):
                continue  # cut by a crash
            if record.key not in self._offsets:
                self._offsets[record.key] = offset
                self.keys.append(record.key)
            if record.given is not None:
                known = self.given.get(record.key, ())
                self.given[record.key] = tuple(dict.fromkeys((*known, record.given)))

    def __contains__(self, key: str) -> bool:
        """Return whether there is a record of this key."""
        return key in self._offsets

    def get(self, key: str) -> LabelRecord:
        """Return a record. Raise UsageError for an unknown key, OSError."""
        if key not in self._offsets:
            raise UsageError("there is no such record in this project", fix="reload the page.")
        with self.path.open("rb") as file:
            file.seek(self._offsets[key])
            return self._parse(file.readline())

    def add(self, records: Sequence[tuple[StoredRecord, str | None]]) -> int:
        """Append the records that are not there yet, and return their number. Raise OSError.

        An answer that contradicts the known ones of the same prompt is kept as well.
        """
        new, seen, known_given = [], set(self.keys), {k: set(v) for k, v in self.given.items()}
        added = 0
        for record, given in records:
            answers = known_given.setdefault(record.key, set())
            if record.key in seen and (given is None or given in answers):
                continue
            added += record.key not in seen
            seen.add(record.key)
            if given is not None:
                answers.add(given)
            new.append(record)
        if new:
            append_lines(self.path, encode_stored(new))
        self.refresh()
        return added

    def _parse(self, line: bytes) -> LabelRecord:
        stored = decode(line, StoredRecord, file=self.path)
        conversation, given = parse_label_record(stored.value, self._settings.columns)
        return LabelRecord(stored.key, stored.file, stored.line, conversation, given)
