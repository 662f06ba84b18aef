"""The records that a job is judged by, and whether it has seen them in training."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloudft.catalogue import is_text_only
from cloudft.data.analysis.leakage import Leak, LeakageIndex
from cloudft.data.findings import Findings
from cloudft.data.records import LocatedRecord, read_records
from cloudft.data.sources.source_files import SourceResolver
from cloudft.data.staging.stage import FOLDER_NAME_LENGTH
from cloudft.errors import CheckFailed, UsageError
from cloudft.evaluate.inference.answer_cache import cache_key
from cloudft.inference import Prompt
from cloudft.jobs.prompts import prompt_of_record
from cloudft.spec import JobSpec, parse_spec
from cloudft.storage.home import Home
from cloudft.storage.store import JobRecord

NEAR_DUPLICATE_SIMILARITY = 0.95
"""Similarity of two inputs from which a held-out record is nearly one of the training's."""


@dataclass(frozen=True)
class EvalExample:
    """One held-out record: what is asked, the answer to hold it to, and where it stands.

    Of an unlabelled document `reference` is the text.
    """

    key: str
    file: str
    line: int
    prompt: Prompt
    input_text: str
    reference: str


@dataclass(frozen=True)
class HeldOutData:
    """The held-out records of a job, its training records, and what they share."""

    examples: tuple[EvalExample, ...]
    train_examples: tuple[EvalExample, ...]
    role: str
    files: tuple[str, ...]
    leaks: tuple[Leak, ...]
    has_train_data: bool

    @property
    def sha256(self) -> str:
        """Of what is asked and the answers, in order: not of the file's form."""
        return hashlib.sha256("".join(item.key for item in self.examples).encode()).hexdigest()


def load_held_out_data(
    record: JobRecord, home: Home, data: Path | None = None, limit: int = 0
) -> HeldOutData:
    """`data`, or what the job held out: its test file, else its validation records.

    With `limit`, that many of them, evenly spread. Raises UsageError when there are none,
    CheckFailed with every fault of the file.
    """
    raw = is_text_only(record.customization_type)
    role, base_dir, patterns = _resolve_source(record, home, data)
    spec = spec_from_record(record)
    columns = dict(spec.data.columns) if spec else {}
    there = _load_records(base_dir, patterns, {str(k): v for k, v in columns.items()})
    if not there:
        raise UsageError(f"there is no record in {', '.join(patterns)}", fix="name another file.")
    if limit and limit < len(there):
        there = [there[i * len(there) // limit] for i in range(limit)]
    trained = list(_load_train_records(record, home))
    leakage = LeakageIndex(
        trained, NEAR_DUPLICATE_SIMILARITY if importlib.util.find_spec("rensa") else None
    )
    return HeldOutData(
        examples=tuple(_to_example(found, raw=raw) for found in there),
        train_examples=tuple(_to_example(found, raw=raw) for found in trained),
        role=role,
        files=tuple(dict.fromkeys(found.file for found in there)),
        leaks=tuple(leakage.find_leaks(role, there)),
        has_train_data=bool(trained),
    )


def _resolve_source(
    record: JobRecord, home: Home, data: Path | None
) -> tuple[str, Path, tuple[str, ...]]:
    """The role, and the files as patterns below a folder."""
    if data is not None:
        return "given", Path.cwd(), (str(data),)
    spec = spec_from_record(record)
    if spec is not None and spec.data.test:
        return "test", Path("/"), spec.data.test
    staged = find_staged_file(record, home, "validation")
    if staged is not None:
        return "validation", Path("/"), (str(staged),)
    raise UsageError(
        f"{record.id} has no held-out data",
        fix="name some: cloudft evaluate JOB --data FILE (data.test in the job file is asked"
        " for by itself).",
    )


def spec_from_record(record: JobRecord) -> JobSpec | None:
    """The job's own specification; None for one that this version does not read."""
    with contextlib.suppress(ValueError):
        return parse_spec(dict(record.spec))
    return None


def find_staged_file(record: JobRecord, home: Home, role: str) -> Path | None:
    """The staged file of a role, in the job's folder or among the staged data; None if gone."""
    file = record.manifest["files"].get(role)
    if file is None:
        return None
    places = (
        record.folder / "data" / file["name"],
        home.staged / str(record.manifest["sha256"])[:FOLDER_NAME_LENGTH] / file["name"],
    )
    return next((path for path in places if path.is_file()), None)


def _load_train_records(record: JobRecord, home: Home) -> Iterator[LocatedRecord]:
    path = find_staged_file(record, home, "train")
    if path is not None:
        noted = Findings()
        yield from read_records(
            SourceResolver(Path("/"), noted).resolve("train", [str(path)]), noted, {}
        )


def _load_records(
    base_dir: Path, patterns: Sequence[str], columns: Mapping[str, str]
) -> list[LocatedRecord]:
    findings = Findings()
    found = list(
        read_records(
            SourceResolver(base_dir, findings).resolve("--data", patterns), findings, columns
        )
    )
    if findings.count_errors():
        listed = findings.all()
        raise CheckFailed(next(f.message for f in listed if f.severity == "error"), listed)
    return found


def _to_example(found: LocatedRecord, *, raw: bool) -> EvalExample:
    """Raises UsageError for labelled records where text is wanted, and the other way round."""
    from cloudft.data.formats.record import BadRecord

    try:
        asked = prompt_of_record(found.record, raw=raw)
    except BadRecord as bad:
        raise UsageError(str(bad), file=found.file, line=found.line, fix=f"{bad.fix}.") from None
    reference = asked.shown if asked.reference is None else asked.reference
    prompt = asked.prompt
    key = cache_key([dict(m) for m in prompt.messages] or prompt.text, reference)
    return EvalExample(key, found.file, found.line, prompt, asked.shown, reference)
