"""Load the held-out records of a job, and find those that it was trained on."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cloudft.backends.answer_cache import cache_key, prompt_to_json
from cloudft.catalogue import is_text_only
from cloudft.data.analysis.leakage import Leak, LeakageIndex
from cloudft.data.findings import Findings
from cloudft.data.formats import preference_pairs, reinforcement
from cloudft.data.formats.record import (
    Conversation,
    Document,
    PreferencePair,
    PromptWithReference,
    Record,
)
from cloudft.data.records import LocatedRecord, read_records
from cloudft.data.sources.source_files import SourceResolver
from cloudft.data.staging.stage import FOLDER_NAME_LENGTH
from cloudft.errors import CheckFailed, UsageError
from cloudft.evaluate.rewards.prompts import GradedPrompt, prompt_for_grader
from cloudft.inference import Message, Prompt, ScoringRequest, message_text
from cloudft.jobs.prompts import prompt_of_record
from cloudft.spec import JobSpec, parse_spec
from cloudft.storage.home import Home
from cloudft.storage.store import JobRecord
from cloudft.types import VALIDATION, is_validation_role

CALL_MARKS_LENGTH = 100
"""Characters of a template around a tool call, or around reasoning, at most."""
NEAR_DUPLICATE_SIMILARITY = 0.95
"""Similarity of two inputs from which a held-out record counts as a near duplicate."""


@dataclass(frozen=True)
class EvalExample:
    """One held-out record: its prompt, its reference answer, and its file and line.

    `input_text` is the last user message. For a document without labels, `reference` is the text.
    `reply` is the reference as a message where it is more than a text. Of a pair of answers the
    reference is the chosen one, and `rejected` scores the other.
    """

    key: str
    file: str
    line: int
    prompt: Prompt
    input_text: str
    reference: str
    reply: Message | None = None
    for_grader: GradedPrompt | None = None
    """The prompt as a grader gets it, of a reinforcement job."""
    rejected: ScoringRequest | None = None

    @property
    def has_plain_question(self) -> bool:
        """Return whether the last message is a text: a question that can be phrased otherwise."""
        messages = self.prompt.messages
        return bool(messages) and isinstance(messages[-1]["content"], str)

    @property
    def reply_length(self) -> int:
        """Return about how many characters a model writes to answer like the reference.

        Reasoning and the marks around tool calls count; the reference has neither.
        """
        if self.reply is None:
            return len(self.reference)
        content = self.reply["content"]
        calls = 0 if isinstance(content, str) else sum("toolUse" in block for block in content)
        return len(message_text(self.reply)) + CALL_MARKS_LENGTH * (1 + calls)

    @property
    def scoring_request(self) -> ScoringRequest:
        """Return the request that scores the reference."""
        return ScoringRequest(self.prompt, self.reference, self.reply)

    def with_question(self, text: str) -> Prompt:
        """Return the conversation with another last user message."""
        messages = [*self.prompt.messages[:-1], {"role": "user", "content": text}]
        return replace(self.prompt, messages=messages)


@dataclass(frozen=True)
class HeldOutData:
    """The held-out records of a job, its training records, and the records that both contain.

    `role` is `given` (a file of the user's), `test` or `validation`.
    """

    examples: tuple[EvalExample, ...]
    train_examples: tuple[EvalExample, ...]
    role: str
    files: tuple[str, ...]
    leaks: tuple[Leak, ...]
    has_train_data: bool

    @property
    def sha256(self) -> str:
        """Return the digest of the prompts and answers in order, whatever the file's format."""
        keys = "".join(example.key for example in self.examples)
        return hashlib.sha256(keys.encode()).hexdigest()


def load_held_out_data(
    record: JobRecord, home: Home, data: Path | None = None, limit: int = 0
) -> HeldOutData:
    """Load `data`, or the job's test file, or else its validation records.

    With `limit`, only that many records, evenly spread. Raises UsageError when there are none,
    CheckFailed with every error in the file.
    """
    raw = is_text_only(record.customization_type)
    role, base_dir, patterns = _resolve_source(record, home, data)
    spec = spec_from_record(record)
    columns = {str(k): v for k, v in spec.data.columns.items()} if spec else {}
    records = _load_records(base_dir, patterns, columns, _target(record))
    if not records:
        raise UsageError(f"no records in {', '.join(patterns)}", fix="name another file.")
    if limit and limit < len(records):
        records = [records[i * len(records) // limit] for i in range(limit)]
    train_records = list(_load_train_records(record, home))
    # Near duplicates need the extra `data`; without it only equal inputs are found.
    similarity = NEAR_DUPLICATE_SIMILARITY if importlib.util.find_spec("rensa") else None
    leakage = LeakageIndex(train_records, similarity)
    return HeldOutData(
        examples=tuple(_to_example(located, raw=raw) for located in records),
        train_examples=tuple(_to_example(located, raw=raw) for located in train_records),
        role=role,
        files=tuple(dict.fromkeys(located.file for located in records)),
        leaks=tuple(leakage.find_leaks(role, records)),
        has_train_data=bool(train_records),
    )


def has_held_out_data(record: JobRecord, home: Home) -> bool:
    """Return whether a job has test or validation data, without reading it."""
    try:
        _resolve_source(record, home, None)
    except UsageError:
        return False
    return True


def _resolve_source(
    record: JobRecord, home: Home, data: Path | None
) -> tuple[str, Path, tuple[str, ...]]:
    """Return the role, a folder, and the files as patterns below it."""
    if data is not None:
        return "given", Path.cwd(), (str(data),)
    spec = spec_from_record(record)
    answered = find_staged_file(record, home, "test")
    if record.customization_type == "DISTILLATION" and answered is not None:
        return "test", Path("/"), (str(answered),)  # the user's own file lacks the answers
    if spec is not None and spec.data.test:
        return "test", Path("/"), spec.data.test
    staged = find_validation_files(record, home)
    if staged:
        return VALIDATION, Path("/"), tuple(str(path) for path in staged.values())
    raise UsageError(
        f"{record.id} has no held-out data",
        fix="name a file: cloudft evaluate JOB --data FILE, or set data.test in the job file.",
    )


def spec_from_record(record: JobRecord) -> JobSpec | None:
    """Return the job's specification, or None for one that this version can't read."""
    with contextlib.suppress(ValueError):
        return parse_spec(dict(record.spec))
    return None


def find_staged_file(record: JobRecord, home: Home, role: str) -> Path | None:
    """Return the staged file of a role, or None when it was deleted.

    It is in the job's folder, or in the folder of staged data. Where a teacher on this machine
    answered the prompts, it is the file with its answers.
    """
    file = record.manifest["files"].get(role)
    if file is None:
        return None
    candidates = (
        record.folder / "teacher" / f"{role}.jsonl",
        record.folder / "data" / file["name"],
        home.staged / str(record.manifest["sha256"])[:FOLDER_NAME_LENGTH] / file["name"],
    )
    return next((path for path in candidates if path.is_file()), None)


def find_validation_files(record: JobRecord, home: Home) -> dict[str, Path]:
    """Return the staged files of the validation data by role: one, or one for each named set."""
    roles = sorted(filter(is_validation_role, record.manifest["files"]))
    found = {role: find_staged_file(record, home, role) for role in roles}
    return {role: path for role, path in found.items() if path is not None}


def _load_train_records(record: JobRecord, home: Home) -> Iterator[LocatedRecord]:
    path = find_staged_file(record, home, "train")
    if path is not None:
        ignored = Findings()
        sources = SourceResolver(Path("/"), ignored).resolve("train", [str(path)])
        target = _target(record)
        for located in read_records(sources, ignored, {}, target=target):
            yield _for_target(located, target)


def _target(record: JobRecord) -> str:
    """Return the format of a job whose records are read for it alone: prompts, or pairs."""
    name = str(record.manifest.get("format", ""))
    return name if name in (reinforcement.NAME, preference_pairs.NAME) else ""


def _for_target(located: LocatedRecord, target: str) -> LocatedRecord:
    """Return a record for a grader as a prompt: the answer of a labeled one is the reference."""
    if target != reinforcement.NAME or isinstance(located.record, Document):
        return located
    return replace(located, record=reinforcement.to_prompt_with_reference(located.record))


def _load_records(
    base_dir: Path, patterns: Sequence[str], columns: Mapping[str, str], target: str
) -> list[LocatedRecord]:
    findings = Findings()
    sources = SourceResolver(base_dir, findings).resolve("--data", patterns, "test")
    records = [
        _for_target(x, target) for x in read_records(sources, findings, columns, None, target)
    ]
    if findings.count_errors():
        listed = findings.all()
        raise CheckFailed(next(f.message for f in listed if f.severity == "error"), listed)
    return records


def _to_example(located: LocatedRecord, *, raw: bool) -> EvalExample:
    """Convert a record. Raises UsageError for labels where text is needed, and vice versa."""
    from cloudft.data.formats.record import BadRecord

    try:
        converted = prompt_of_record(located.record, raw=raw)
    except BadRecord as bad:
        raise UsageError(
            str(bad), file=located.file, line=located.line, fix=f"{bad.fix}."
        ) from None
    reference = converted.shown if converted.reference is None else converted.reference
    prompt = converted.prompt
    key = cache_key(prompt_to_json(prompt), reference)
    place = (located.file, located.line)
    rejected = _score_rejected(located.record)
    if rejected is not None:  # another pair of the same prompt and chosen answer is another record
        key = cache_key(prompt_to_json(prompt), reference, rejected.text)
    is_for_grader = isinstance(located.record, PromptWithReference)
    return EvalExample(
        key,
        *place,
        prompt,
        converted.shown,
        reference,
        converted.reply,
        prompt_for_grader(located) if is_for_grader else None,
        rejected,
    )


def _score_rejected(record: Record) -> ScoringRequest | None:
    """Return the request that scores the rejected answer of a pair; None for another record."""
    if not isinstance(record, PreferencePair):
        return None
    turns = (*record.turns[: record.prompt_length], *record.rejected)
    worse = Conversation(record.format, record.system, turns, tools=record.tools)
    converted = prompt_of_record(worse, raw=False)
    return ScoringRequest(converted.prompt, converted.reference or "", converted.reply)
