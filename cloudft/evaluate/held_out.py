"""The records that a job is judged by, and whether it has seen them in training."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloudft.backends.base import Prompt
from cloudft.data.findings import Findings
from cloudft.data.leakage import Leak, Leakage
from cloudft.data.records import Located, located
from cloudft.data.sources import Sources
from cloudft.data.stage import NAME_LENGTH
from cloudft.errors import CheckFailed, UsageError
from cloudft.evaluate.cache import key_of
from cloudft.home import Home
from cloudft.prompts import question
from cloudft.spec import JobSpec
from cloudft.store import Record

NEAR = 0.95
"""Similarity of two inputs from which a held-out record is nearly one of the training's."""


@dataclass(frozen=True)
class Item:
    """One held-out record: what is asked, the answer to hold it to, and where it stands.

    Of an unlabelled document `reference` is the text.
    """

    key: str
    file: str
    line: int
    prompt: Prompt
    shown: str
    reference: str


@dataclass(frozen=True)
class HeldOut:
    """The held-out records of a job, its training records, and what they share."""

    items: tuple[Item, ...]
    train: tuple[Item, ...]
    role: str
    files: tuple[str, ...]
    leaks: tuple[Leak, ...]
    train_known: bool

    @property
    def sha256(self) -> str:
        """Of what is asked and the answers, in order: not of the file's form."""
        return hashlib.sha256("".join(item.key for item in self.items).encode()).hexdigest()


def held_out(record: Record, home: Home, data: Path | None = None, limit: int = 0) -> HeldOut:
    """`data`, or what the job held out: its test file, else its validation records.

    With `limit`, that many of them, evenly spread. Raises UsageError when there are none,
    CheckFailed with every fault of the file.
    """
    raw = record.customization_type == "CONTINUED_PRE_TRAINING"
    role, base_dir, patterns = _named(record, home, data)
    spec = spec_of(record)
    columns = dict(spec.data.columns) if spec else {}
    there = _records(base_dir, patterns, {str(k): v for k, v in columns.items()})
    if not there:
        raise UsageError(f"there is no record in {', '.join(patterns)}", fix="name another file.")
    if limit and limit < len(there):
        there = [there[i * len(there) // limit] for i in range(limit)]
    trained = list(_training(record, home))
    leakage = Leakage(trained, NEAR if importlib.util.find_spec("rensa") else None)
    return HeldOut(
        items=tuple(_item(found, raw=raw) for found in there),
        train=tuple(_item(found, raw=raw) for found in trained),
        role=role,
        files=tuple(dict.fromkeys(found.file for found in there)),
        leaks=tuple(leakage.of(role, there)),
        train_known=bool(trained),
    )


def _named(record: Record, home: Home, data: Path | None) -> tuple[str, Path, tuple[str, ...]]:
    """The role, and the files as patterns below a folder."""
    if data is not None:
        return "given", Path.cwd(), (str(data),)
    spec = spec_of(record)
    if spec is not None and spec.data.test:
        return "test", Path("/"), spec.data.test
    staged = staged_file(record, home, "validation")
    if staged is not None:
        return "validation", Path("/"), (str(staged),)
    raise UsageError(
        f"{record.id} has no held-out data",
        fix="name some: cloudft evaluate JOB --data FILE (data.test in the job file is asked"
        " for by itself).",
    )


def spec_of(record: Record) -> JobSpec | None:
    """The job's own specification; None for one that this version does not read."""
    with contextlib.suppress(ValueError):
        return JobSpec.model_validate(dict(record.spec))
    return None


def staged_file(record: Record, home: Home, role: str) -> Path | None:
    """The staged file of a role, in the job's folder or among the staged data; None if gone."""
    file = record.manifest["files"].get(role)
    if file is None:
        return None
    places = (
        record.folder / "data" / file["name"],
        home.staged / str(record.manifest["sha256"])[:NAME_LENGTH] / file["name"],
    )
    return next((path for path in places if path.is_file()), None)


def _training(record: Record, home: Home) -> Iterator[Located]:
    path = staged_file(record, home, "train")
    if path is not None:
        noted = Findings()
        yield from located(Sources(Path("/"), noted).files("train", [str(path)]), noted, {})


def _records(base_dir: Path, patterns: Sequence[str], columns: Mapping[str, str]) -> list[Located]:
    findings = Findings()
    found = list(located(Sources(base_dir, findings).files("--data", patterns), findings, columns))
    if findings.errors():
        listed = findings.all()
        raise CheckFailed(next(f.message for f in listed if f.severity == "error"), listed)
    return found


def _item(found: Located, *, raw: bool) -> Item:
    """Raises UsageError for labelled records where text is wanted, and the other way round."""
    from cloudft.data.record import BadRecord

    try:
        asked = question(found.record, raw=raw)
    except BadRecord as bad:
        raise UsageError(str(bad), file=found.file, line=found.line, fix=f"{bad.fix}.") from None
    reference = asked.shown if asked.reference is None else asked.reference
    prompt = asked.prompt
    key = key_of([dict(m) for m in prompt.messages] or prompt.text, reference)
    return Item(key, found.file, found.line, prompt, asked.shown, reference)
