"""Write repaired copies of a job's broken files, for `check --fix`."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from cloudft.cli.options import Console
from cloudft.errors import UsageError

if TYPE_CHECKING:
    from cloudft.data.sources.repair import RecordRules, RepairedValue
    from cloudft.data.sources.source_files import SourceFile
    from cloudft.data.sources.turn_edits import TurnEdit
    from cloudft.spec.load import LoadedJob
    from cloudft.types import Finding

LINES_SHOWN = 10
_UNSAFE = re.compile(r"[^\w.-]")
TEXT_TYPES = ("csv", "text")
UNREPAIRABLE = {
    "csv": "rows are not repaired: correct what `cloudft check` lists by hand",
    "text": "texts are not repaired: correct what `cloudft check` lists by hand",
    "parquet": "Parquet files are not repaired: correct the program that writes them",
    "arrow": "Arrow files are not repaired: correct the program that writes them",
}
"""File type -> why there is no copy, where nothing but its bytes could be repaired."""


class OmittedLine(TypedDict):
    """A line that the repaired copy lacks, and the code of the finding that is its reason."""

    line: int
    code: str


class RepairedFile(TypedDict):
    """What `check --fix` did to a file, as JSON.

    `changes` are what it did to the whole file. Where there was nothing to do, `copy` is None and
    `reason` says why.
    """

    file: str
    copy: Path | None
    records: int | None
    changed: int
    leftOut: list[OmittedLine]
    changes: list[str]
    turns: dict[str, int]
    reason: str | None


def write_repaired_files(
    job: LoadedJob,
    findings: Iterable[Finding],
    folder: Path,
    console: Console,
    turns: tuple[TurnEdit, ...] = (),
) -> list[RepairedFile]:
    """Write a repaired copy of each file with errors or warnings into `folder`.

    Return what was done to each file. Raise UsageError when one of the copies exists: nothing is
    overwritten.
    """
    broken = {finding.file for finding in findings if finding.severity != "note"}
    names = _CopyNames(folder)
    repaired: list[RepairedFile] = []
    for source, rules in _iter_sources(job, turns):
        if source.display_name in broken:
            repaired += _repair_source(source, rules, names)
    for value in repaired:
        _report_repair(value, console)
    return repaired


def _iter_sources(
    job: LoadedJob, turns: tuple[TurnEdit, ...]
) -> Iterable[tuple[SourceFile, RecordRules]]:
    """Yield the job's files, each with the rules by which the job reads it."""
    from cloudft.data.findings import Findings
    from cloudft.data.sources.repair import RecordRules
    from cloudft.data.sources.source_files import SourceResolver
    from cloudft.types import role_field

    sources = SourceResolver(job.base_dir, Findings())
    data = job.spec.data
    columns = {str(name): column for name, column in data.columns.items()}
    target = job.model.formats.get(job.spec.customization_type, "")
    named = [("data.train", data.train)]
    named += [(role_field(role), paths) for role, paths in data.held_out_files.items()]
    named += [("data.mix", part.path) for part in data.mix]
    for field, paths in named:
        group_by = data.group_by if field == "data.train" else None
        rules = RecordRules(columns, target, group_by, turns)
        yield from ((source, rules) for source in sources.resolve(field, paths))


class _CopyNames:
    """Names of the copies: files of one name in several folders become NAME, 2-NAME, ..."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._counts = folder, Counter[str]()

    def choose(self, name: str) -> Path:
        """Return the path of a copy."""
        self._counts[name] += 1
        prefix = f"{self._counts[name]}-" if self._counts[name] > 1 else ""
        return self._folder / f"{prefix}{name}"


def _repair_source(source: SourceFile, rules: RecordRules, names: _CopyNames) -> list[RepairedFile]:
    from cloudft.storage.archives import BadArchive

    try:
        if source.file_type == "jsonl" or _holds_json(source):
            return _repair_json(source, rules, names)
        if source.file_type in TEXT_TYPES:
            return [_repair_text(source, names)]
    except BadArchive as error:
        what = f"the compressed file can't be repaired: {error}"
        raise UsageError(
            what, file=source.display_name, fix="decompress it, and name the result."
        ) from error
    return [_unrepaired(source, UNREPAIRABLE[source.file_type])]


def _holds_json(source: SourceFile) -> bool:
    """Return whether a text file holds JSON records, as text_reader.py decides."""
    from cloudft.data.sources.line_blocks import SMALL_FILE, read_up_to
    from cloudft.data.sources.text_reader import holds_records

    if source.file_type != "text":
        return False
    with source.open() as handle:
        return holds_records(read_up_to(handle, SMALL_FILE))


def _unrepaired(source: SourceFile, reason: str) -> RepairedFile:
    return {
        "file": source.display_name,
        "copy": None,
        "records": None,
        "changed": 0,
        "leftOut": [],
        "changes": [],
        "turns": {},
        "reason": reason,
    }


class _NothingToWrite(Exception):
    """There is no use in a copy; the message says why."""


class _Copy:
    """One repaired copy, while it is written."""

    def __init__(self, path: Path, stack: contextlib.ExitStack) -> None:
        from cloudft.data.staging.dataset_transform import new_output_file
        from cloudft.storage.atomic_files import as_store_error

        self.path = path
        self.records = self.changed = 0
        self.left_out: list[OmittedLine] = []
        self.turns = Counter[str]()
        with as_store_error(f"{path.parent} can't be written", path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._file = stack.enter_context(stack.enter_context(new_output_file(path)).open("wb"))

    def write(self, raw: bytes) -> None:
        """Write bytes as they are."""
        self._file.write(raw)

    def add(self, value: RepairedValue) -> None:
        """Write a value's records."""
        for record in value.records:
            self._file.write(record + b"\n")
        self.records += len(value.records)
        self.changed += value.changed
        self.turns.update(value.edits)
        if value.error_code:
            self.left_out.append({"line": value.line, "code": value.error_code})


def _repair_json(source: SourceFile, rules: RecordRules, names: _CopyNames) -> list[RepairedFile]:
    """Write the copy of a JSON file, or one for each list that it has its records in."""
    from cloudft.data.sources.repair import JsonRepair

    repair = JsonRepair(rules)
    copies: dict[str, _Copy] = {}
    try:
        with contextlib.ExitStack() as stack, source.open() as handle:
            for value in repair.read(handle):
                key = value.list_key
                if key not in copies:
                    part = f".{_UNSAFE.sub('_', key)}" if key else ""
                    name = f"{source.path.stem}{part}.jsonl"
                    copies[key] = _Copy(names.choose(name), stack)
                copies[key].add(value)
            _require_use(list(copies.values()), list(repair.changes))
    except _NothingToWrite as nothing:
        left_out = [one for copy in copies.values() for one in copy.left_out]
        return [{**_unrepaired(source, str(nothing)), "leftOut": left_out}]
    return [
        {
            "file": source.display_name,
            "copy": copy.path,
            "records": copy.records,
            "changed": copy.changed,
            "leftOut": copy.left_out,
            "changes": list(repair.changes),
            "turns": dict(copy.turns),
            "reason": None,
        }
        for copy in copies.values()
    ]


def _require_use(copies: Sequence[_Copy], changes: Sequence[str]) -> None:
    """Raise _NothingToWrite if the copies would be empty, or what the file is already."""
    if not any(copy.records for copy in copies):
        codes = Counter(one["code"] for copy in copies for one in copy.left_out)
        listed = ", ".join(f"{code} {count}x" for code, count in codes.most_common())
        hint = "; data.columns must name their keys" if set(codes) == {"WrongKeys"} else ""
        raise _NothingToWrite(f"no record can be repaired ({listed or 'there is none'}){hint}")
    if not changes and not any(copy.changed for copy in copies):
        raise _NothingToWrite("there is nothing to repair in its bytes and its JSON")


def _repair_text(source: SourceFile, names: _CopyNames) -> RepairedFile:
    """Write the copy of a CSV or text file in UTF-8, if anything changes."""
    from cloudft.data.sources.byte_repair import NotText, repair_text
    from cloudft.data.sources.line_blocks import LineTooLong
    from cloudft.data.sources.row_reader import MAX_RECORD_BYTES

    changes: dict[str, None] = {}
    try:
        with contextlib.ExitStack() as stack, source.open() as handle:
            copy = _Copy(names.choose(source.path.name), stack)
            for line in repair_text(
                handle, lambda one: changes.update({one: None}), MAX_RECORD_BYTES
            ):
                copy.write(line)
            if not changes:
                raise _NothingToWrite(UNREPAIRABLE[source.file_type])
    except NotText as error:
        return _unrepaired(source, f"line {error.line} is neither UTF-8 nor Windows-1252")
    except LineTooLong as error:
        return _unrepaired(source, f"line {error.line} is too long")
    except _NothingToWrite as nothing:
        return _unrepaired(source, str(nothing))
    return {
        **_unrepaired(source, ""),
        "copy": copy.path,
        "changes": list(changes),
        "reason": None,
    }


def _report_repair(value: RepairedFile, console: Console) -> None:
    file, left_out = value["file"], value["leftOut"]
    if value["copy"] is None:
        console.note(f"{file}: no copy: {value['reason']}")
    else:
        counts = ""
        if value["records"] is not None:
            counts = (
                f": {value['records']} records, {value['changed']} lines changed,"
                f" {len(left_out)} left out"
            )
        console.note(f"{file}: repaired copy {value['copy']}{counts}")
        edits = [f"{edit}: {count} records" for edit, count in value["turns"].items()]
        for change in (*value["changes"], *edits):
            console.note(f"  {change}")
    for one in left_out[:LINES_SHOWN]:
        console.note(f"  left out: {file}:{one['line']} ({one['code']})")
    if len(left_out) > LINES_SHOWN:
        more = len(left_out) - LINES_SHOWN
        console.note(f"  ... and {more} more; `--output json` lists them all")
