"""Keep prompts as test cases: sets of records that models answer again and again.

A set is a JSONL file below CLOUDFT_HOME, in the data format of the job it was begun with, so that
`cloudft evaluate --data FILE` and `generate --file FILE` read it. A case without an expected answer
is `{"prompt": ...}`, which `generate` reads, but `evaluate` does not.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from cloudft.data.formats.recognizer import match_format, parse_record
from cloudft.data.formats.record import BadRecord, Conversation, Document
from cloudft.errors import UsageError
from cloudft.inference import Message, Prompt, message_text
from cloudft.jobs.conversation import data_format, encode_turns
from cloudft.jobs.prompts import prompt_of_record
from cloudft.storage.atomic_files import as_store_error, make_private_folder
from cloudft.storage.home import Home
from cloudft.storage.jsonl_append import append_line, remove_line
from cloudft.storage.store import JobRecord

NAME = re.compile(r"\w[\w.-]{0,59}")
DEFAULT_SET = "cases"


@dataclass(frozen=True)
class PromptCase:
    """A case: its prompt, its text for people, and the expected answer, None where there is none.

    `key` identifies its line. `problem` says why the line can't be used; then there is no prompt.
    """

    key: str
    line_number: int
    prompt: Prompt
    shown: str
    expected: str | None = None
    problem: str = ""


@dataclass(frozen=True)
class CaseSet:
    """The cases of one file, in its order."""

    name: str
    path: Path
    cases: tuple[PromptCase, ...]

    @property
    def without_expected(self) -> int:
        """Return how many cases have no expected answer, and so are none for `evaluate`."""
        return sum(case.expected is None for case in self.cases)


class CaseSets:
    """The sets of one home. Every change is on the disk, whole, when it returns."""

    def __init__(self, home: Home) -> None:
        self._folder = home.cases

    def names(self) -> list[str]:
        """Return the names of the sets."""
        try:
            return sorted(
                path.stem for path in self._folder.glob("*.jsonl") if NAME.fullmatch(path.stem)
            )
        except OSError:
            return []

    def load(self, name: str) -> CaseSet:
        """Return a set; an empty one where there is none of that name. Raise StoreError."""
        path = self.path_of(name)
        with as_store_error(f"the test cases {name} can't be read", path):
            try:
                lines = path.read_bytes().splitlines()
            except FileNotFoundError:
                lines = []
        cases = [_read_case(line, n) for n, line in enumerate(lines, 1) if line.strip()]
        return CaseSet(name, path, tuple(cases))

    def add(
        self, name: str, record: JobRecord, system: str, turns: Sequence[Message], expected: str
    ) -> bytes:
        """Append a case that was made with a job's model, and return its line.

        `turns` end with the question; an `expected` answer that is blank is none. Raise UsageError
        for a blank question, StoreError.
        """
        if not turns or not message_text(turns[-1]).strip():
            raise UsageError("a test case needs a prompt", fix="write one.")
        path = self.path_of(name)
        line = _encode_case(self._format_of(name) or data_format(record), system, turns, expected)
        with as_store_error(f"the test case can't be saved in {path}", path):
            make_private_folder(path.parent)
            append_line(path, line)
        return line

    def remove(self, name: str, key: str) -> None:
        """Remove a case. Raise UsageError for one that is not there, StoreError."""
        path = self.path_of(name)
        with as_store_error(f"the test case can't be removed from {path}", path):
            try:
                lines = path.read_bytes().splitlines()
            except FileNotFoundError:
                lines = []
            for line in lines:
                if _key_of(line) == key and remove_line(path, line):
                    return
        raise UsageError("this test case was removed already", fix="open the page again.")

    def path_of(self, name: str) -> Path:
        """Return the file of a set. Raise UsageError for what is no name."""
        if not NAME.fullmatch(name):
            raise UsageError(
                f"{name[:60]!r} can't be the name of a set",
                fix="use letters, digits, '.', '_' and '-', at most 60 of them.",
            )
        return self._folder / f"{name}.jsonl"

    def _format_of(self, name: str) -> str | None:
        """Return the format of a set's first case with an answer: a file has one format."""
        for line in self.path_of(name).read_bytes().splitlines() if name in self.names() else ():
            try:
                value = json.loads(line)
            except (RecursionError, ValueError):
                continue
            if isinstance(value, dict) and set(value) != {"prompt"}:
                found = match_format(value)
                return found.name if found else None
        return None


def _encode_case(format_name: str, system: str, turns: Sequence[Message], expected: str) -> bytes:
    if expected.strip():
        answered = [*turns, {"role": "assistant", "content": expected}]
        return encode_turns(system, answered, format_name, is_raw=False)[0]
    head = [{"role": "system", "content": system}] if system else []
    messages = [*head, *turns]
    prompt = messages if len(messages) > 1 else messages[0]["content"]
    return orjson.dumps({"prompt": prompt}) + b"\n"


def _key_of(line: bytes) -> str:
    return hashlib.sha256(line.strip()).hexdigest()[:16]


def _read_case(line: bytes, number: int) -> PromptCase:
    key = _key_of(line)
    try:
        value = json.loads(line)
        if not isinstance(value, dict):
            raise ValueError("it is no JSON object")
        if set(value) == {"prompt"}:
            prompt = _prompt_alone(value["prompt"])
            return PromptCase(key, number, prompt, message_text(prompt.messages[-1]))
        record = parse_record(value, {})
        assert isinstance(record, Conversation | Document)
        read = prompt_of_record(record, raw=isinstance(record, Document))
    except (BadRecord, KeyError, RecursionError, TypeError, ValueError) as error:
        reason = error.message if isinstance(error, BadRecord) else str(error)
        return PromptCase(key, number, Prompt(), "", problem=f"line {number}: {reason}"[:300])
    return PromptCase(key, number, read.prompt, read.shown, read.reference)


def _prompt_alone(value: Any) -> Prompt:
    """Return the prompt of a case without an answer. Raise ValueError."""
    if isinstance(value, str) and value.strip():
        return Prompt([{"role": "user", "content": value}])
    if not isinstance(value, list) or not value or not all(map(_is_message, value)):
        raise ValueError("its prompt is neither a text nor messages of texts")
    return Prompt(value)


def _is_message(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and value.get("role") in ("system", "user", "assistant")
        and isinstance(value.get("content"), str)
    )
