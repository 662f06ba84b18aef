"""Render every record as the trainer will: with the chat template and the tokenizer of its model.

So what a template refuses is found before a job is submitted, with file and line, and tokens are
counted and not estimated. The trainer's own program does it (local_backend/data/
tokenize_records.py), where the model's tokenizer is on this machine.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import Timer
from typing import Any

from cloudft.backends.base import Backend
from cloudft.backends.capabilities import (
    SLOW_TOKENIZER,
    SLOW_TOKENIZER_S,
    SupportsChatTemplate,
)
from cloudft.backends.observer import RunObserver
from cloudft.catalogue import is_text_only
from cloudft.data.encoded_records import read_encoded
from cloudft.data.findings import Findings
from cloudft.data.sources.source_files import SourceResolver
from cloudft.errors import TrainerError
from cloudft.spec.load import LoadedJob
from cloudft.types import DataVolume, Finding, role_field

PROGRESS_INTERVAL = 1000
"""Records between two reports of progress."""


@dataclass(frozen=True)
class Rendering:
    """What rendering the records found. `tokens` are those of each role's files."""

    findings: tuple[Finding, ...]
    tokens: Mapping[str, int]

    def count(self, volumes: Mapping[str, DataVolume]) -> dict[str, DataVolume]:
        """Return the volumes with counted tokens.

        A validation set that is split from the training data gets its share of their tokens.
        """
        if not self.tokens:
            return dict(volumes)
        counted = {}
        shared = sum(v.tokens for role, v in volumes.items() if role not in self.tokens)
        shared += volumes["train"].tokens
        for role, volume in volumes.items():
            own = self.tokens.get(role)
            if own is None or role == "train":
                own = round(self.tokens["train"] * volume.tokens / shared) if shared else 0
            counted[role] = replace(volume, tokens=own)
        return counted


@dataclass
class _Lines:
    """Where the records of some files are, in the order in which they were read."""

    files: list[str] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    lines: array[int] = field(default_factory=lambda: array("Q"))

    def add(self, file: str, lines: Sequence[int]) -> None:
        if not self.files or self.files[-1] != file:
            self.files.append(file)
            self.starts.append(len(self.lines))
        self.lines.extend(lines)

    def find(self, number: int) -> tuple[str, int]:
        return self.files[bisect_right(self.starts, number) - 1], self.lines[number]


def render_data(job: LoadedJob, backend: Backend, observer: RunObserver) -> Rendering | None:
    """Render all records of a job whose data has no error.

    Return None where no template renders them here: the backend has none, or the tokenizer is not
    on this machine. Raise TrainerError if the tokenizer can't be loaded.
    """
    if not isinstance(backend, SupportsChatTemplate) or not backend.has_template(job):
        return None
    findings = Findings()
    if not job.spec.data.train:  # logs: what is trained on is not here
        return None
    roles = {"train": job.spec.data.train, **job.spec.data.held_out_files}
    tokens = {
        role: _RoleRendering(job, backend, role, findings).run(paths, observer)
        for role, paths in roles.items()
    }
    return Rendering(findings.all(), tokens)


class _RoleRendering:
    """One pass over the files of a role."""

    def __init__(
        self, job: LoadedJob, backend: SupportsChatTemplate, role: str, findings: Findings
    ) -> None:
        self._job, self._backend, self._role, self._findings = job, backend, role, findings
        self._places = _Lines()
        self._context = 0
        self._limit: int | None = None
        self._cut = 0
        self._longest = (0, 0)
        """The number and the tokens of the longest record that is cut."""
        self._last_turn_only = 0

    def run(self, paths: tuple[str, ...], observer: RunObserver) -> int:
        """Add what the template refuses to the findings, and return the number of tokens."""
        replies = self._backend.render(self._job, self._read(paths))
        notice = Timer(SLOW_TOKENIZER_S, observer.on_activity, (SLOW_TOKENIZER,))
        notice.daemon = True
        notice.start()
        try:
            self._note_facts(next(replies))
        finally:
            notice.cancel()
        total = 0
        for number, reply in enumerate(replies):
            total += self._take(number, reply)
            if number and number % PROGRESS_INTERVAL == 0:
                observer.on_records_rendered(number)
        self._note_lengths()
        return total

    def _read(self, paths: tuple[str, ...]) -> Iterator[bytes]:
        """Yield the records in the base model's format, some at once."""
        job, unread = self._job, Findings()  # what is wrong with the files was found before
        target = job.model.formats[job.spec.customization_type]
        columns = {str(name): column for name, column in job.spec.data.columns.items()}
        sources = SourceResolver(job.base_dir, unread).resolve(role_field(self._role), paths)
        for records in read_encoded(sources, columns, target):
            self._places.add(records.file, records.lines)
            yield records.raw

    def _take(self, number: int, reply: Mapping[str, Any]) -> int:
        """Return the tokens of one record; add a finding for one that can't be rendered."""
        if "problem" in reply:
            file, line = self._places.find(number)
            self._findings.add(
                "NotRendered", _as_clause(reply["problem"]), reply["fix"], file=file, line=line
            )
            return 0
        tokens: int = reply["tokens"]
        self._last_turn_only += bool(reply.get("lastTurnOnly"))
        longest: int = reply.get("longest", tokens)  # each of several sequences is cut by itself
        if self._limit is not None and longest > self._limit:
            self._cut += 1
            self._longest = max(self._longest, (number, longest), key=lambda one: one[1])
        return tokens

    def _note_facts(self, facts: Mapping[str, Any]) -> None:
        local, self._context = self._job.spec.local, facts["context"]
        if not is_text_only(self._job.spec.customization_type):
            self._limit = min(local.max_length or facts["context"], facts["context"])
        if facts.get("writesDate") and self._role == "train":
            self._findings.add(
                "TemplateDate",
                "the model's chat template writes today's date: training takes the day on which the"
                " job is submitted, and so do all later prompts to the tuned model",
                "",
                severity="note",
            )

    def _note_lengths(self) -> None:
        """Add findings about records that are cut, and about turns that are not learned."""
        if self._cut and self._role != "test":
            self._note_cut_records()
        if self._last_turn_only:
            self._findings.add(
                "LastTurnOnly",
                f"of {self._last_turn_only} {self._role} records only the last answer is learned:"
                " the model's chat template rewrites earlier turns",
                "to learn them too, make a record of each answer with the turns before it",
                severity="note",
            )

    def _note_cut_records(self) -> None:
        number, tokens = self._longest
        file, line = self._places.find(number)
        local, count = self._job.spec.local, len(self._places.lines)
        allowed = local.max_truncated_share
        is_error = self._cut > allowed * count
        held_out = self._job.spec.data.validation if self._role == "train" else None
        message = (
            f"{self._cut} of {count} {self._role} records are longer than {self._limit} tokens and"
            f" will be cut; this one has {tokens}"
        )
        if is_error:
            message += f", and the allowed share is {allowed:g}"
        elif isinstance(held_out, float) and self._cut > allowed * max(1, round(held_out * count)):
            message += (
                "; the job fails if too many of them are among the validation records, of which"
                f" {allowed:g} may be cut"
            )
        longer = "raise local.max_length, " if (self._limit or 0) < self._context else ""
        self._findings.add(
            "RecordsCut",
            message,
            f"{longer}shorten the records, or raise local.max_truncated_share",
            file=file,
            line=line,
            severity="error" if is_error else "warning",
        )


def _as_clause(sentence: str) -> str:
    """Return a sentence of the trainer as the message of a finding."""
    return sentence[:1].lower() + sentence[1:].rstrip(".")


def unrendered_finding(error: TrainerError) -> Finding:
    """Return the error that no record could be rendered here: training could not do it either."""
    fix = error.fix or "save the model's tokenizer again, or choose another model"
    return Finding("error", "NotRendered", _as_clause(error.message), fix)
