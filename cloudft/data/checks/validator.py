"""The one pass over data: bytes are read once, hashed, decoded, checked; good records go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Protocol

from cloudft.data.checks.dataset_limits import DatasetLimits
from cloudft.data.checks.file_reading import (
    LISTED_KEYS,
    BlankFields,
    FileReading,
    note_reading,
    warn_columns_left_out,
)
from cloudft.data.checks.record_keys import RecordKeys
from cloudft.data.checks.secret_keys import SecretDetector
from cloudft.data.checks.traps import TrapDetector, warn_traps
from cloudft.data.findings import Findings
from cloudft.data.formats import distillation
from cloudft.data.formats.annotations import holds_several_labels
from cloudft.data.formats.chat_fast_path import CONTENT_TYPES
from cloudft.data.formats.columns_line import columns_line
from cloudft.data.formats.fast_path import (
    RecordBatch,
    can_encode,
    decode_batch,
    decode_values,
    make_batch,
)
from cloudft.data.formats.recognizer import flatten_record, is_annotated, parse_record
from cloudft.data.formats.record import BadRecord, JsonObject, RawRecord, Record
from cloudft.data.sources.file_parts import FilePart
from cloudft.data.sources.json_rows import read_json_rows
from cloudft.data.sources.line_blocks import Block, StreamDigest
from cloudft.data.sources.row_reader import JsonBlock, ReadContext, Row, read_rows
from cloudft.data.sources.source_files import SourceFile
from cloudft.types import ManifestSource, Severity

SOME_ANSWERED = {"prompt", "prompt-completion"}
"""Shapes of prompts of which some have an answer, which a distillation keeps."""
PROGRESS_INTERVAL = 1000
"""Records between two reports of progress."""


class RecordSink(Protocol):
    """Receives the valid records, to count or to write them."""

    def add_record(self, record: Record, group: str | None = None) -> None:
        """Take one record of a group. Raises BadRecord when its format can't be written."""

    def add_batch(self, batch: RecordBatch) -> None:
        """Take a block of plain records."""


class Validator:
    """Reads files, one after another, and adds to `findings` what is wrong with them.

    Blocks of plain JSONL records in the format of the record before them are checked as a whole
    (formats/fast_path.py); all others record by record.
    """

    def __init__(
        self,
        target: str,
        columns: Mapping[str, str],
        findings: Findings,
        progress: Callable[[int], None] | None = None,
        digest: type[StreamDigest] = StreamDigest,
        limits: DatasetLimits | None = None,
    ) -> None:
        self._target, self._columns, self._findings = target, columns, findings
        self._limits = limits or DatasetLimits()
        self._digest = digest
        self._progress = progress or (lambda _: None)
        self._count = self._reported = 0
        self.keys: dict[str, RecordKeys] = {}
        """By role, where the records of the roles to hash are added."""
        self.field_types: Mapping[str, type] = {}
        """Types of the fields of the last file's records, as far as these were read singly."""
        self.missing_columns = set(columns.values())
        """The columns that no record has had yet, of those that are named."""

    def read_file(
        self, source: SourceFile, role: str, sink: RecordSink, group_by: str | None = None
    ) -> ManifestSource:
        """Read one file's good records into `sink`, and return what the file was.

        `group_by` names a key that is no part of the record; its value goes to the sink.
        """
        context = ReadContext(source, self._findings, self._digest(), columns=self._columns)
        reading = FileReading(self._columns)
        file = _FilePass(
            context,
            sink,
            self._target,
            self._columns,
            self._limits,
            group_by,
            self.add_count,
            reading,
            self.missing_columns,
            self.keys.get(role),
        )
        if isinstance(source, FilePart) and source.start:
            file.secrets.left = 0  # the beginning of the file is in another part
        if file.keys is not None:
            file.keys.start_file(source.display_name)
        before = self._count
        file.read()
        count = self._count - before
        if not count and not self._findings.count_errors(source.display_name):
            fix = "put records into it, or leave it out"
            context.add_error("NoRecords", "the file holds no records", fix)
        warn_traps(self._findings, file.traps, source.display_name)
        file.secrets.warn(self._findings, source.display_name)
        self.field_types = file.types
        read = reading.to_manifest_source(role, source.name, context.digest)
        note_reading(self._findings, read, source.display_name)
        warn_columns_left_out(self._findings, read, source.display_name, self._columns)
        return read

    def report_pending(self, records: int) -> None:
        """Report records that other processes have read and that are not counted yet."""
        self._progress(self._count + records)

    def add_count(self, records: int) -> None:
        """Count more records."""
        self._count += records
        if self._count - self._reported >= PROGRESS_INTERVAL:
            self._reported = self._count
            self._progress(self._count)

    def finish(self) -> None:
        """Report the final count."""
        self._progress(self._count)


def note_missing_columns(columns: Mapping[str, str], missing: Set[str], findings: Findings) -> None:
    """Add an error for columns that no record has: they are not what was meant."""
    if not missing or findings.count_errors():
        return
    unused = [column for column in columns.values() if column in missing]
    names = ", ".join(repr(column[:40]) for column in unused[:LISTED_KEYS])
    message = f"no record has a column {names} (data.columns, --column)"
    rest = {name: column for name, column in columns.items() if column not in missing}
    fix = "correct the names, or leave them out: the records are read by their own keys"
    if rest:
        fix = f"correct the name, or leave it out: {columns_line(rest)}"
    findings.add("UnusedColumns", message, fix, field="data.columns")


@dataclass
class _FilePass:
    """The pass over one file."""

    context: ReadContext
    sink: RecordSink
    target: str
    columns: Mapping[str, str]
    limits: DatasetLimits
    group_by: str | None
    on_count: Callable[[int], None]
    reading: FileReading
    missing_columns: set[str]
    keys: RecordKeys | None = None
    traps: TrapDetector = field(default_factory=TrapDetector)
    secrets: SecretDetector = field(default_factory=SecretDetector)
    types: dict[str, type] = field(default_factory=dict)
    blank: BlankFields = field(default_factory=BlankFields)

    def read(self) -> None:
        """Read all of it."""
        # Renamed columns and groups need the raw record, which a batch does not have.
        read_block = None if self.columns or self.group_by else self._read_block
        take_rows = None if self.group_by else self._take_rows
        for row in read_rows(self.context, read_block, take_rows):
            format = self._read_row(row)
            if format:
                self.on_count(1)
                if format != self.reading.format:
                    self._warn_mixed_formats(row.line, format)
        if not self.reading.records:
            self.blank.add_error(self.context.findings, self.context.source.display_name)

    def _read_block(self, block: JsonBlock) -> Iterator[Row]:
        """Yield the rows of a block that must be read singly: all of them, or none."""
        batch = self._decode(block) if self._may_be_plain() else None
        if batch is None or not self._take_batch(batch, block.raw, block.record_lines()):
            yield from read_json_rows(self.context, block)

    def _decode(self, block: JsonBlock) -> RecordBatch | None:
        """Return the records of a block if all are plain."""
        format = self.reading.format
        if isinstance(block, Block):
            return decode_batch(format, block.raw, block.line_count)
        batch = decode_values(format, block.raw, in_array=block.in_array)
        block.is_proven |= batch is not None
        return batch

    def _take_rows(
        self, names: Sequence[str], rows: Sequence[Sequence[str]], lines: Sequence[int]
    ) -> bool:
        """Take rows of a table if they are plain records in the format of the one before."""
        if is_annotated(names):
            return False
        batch = make_batch(self.reading.format, self.columns, names, rows)
        if batch is None:
            return False
        raw = "".join([*batch.prompts, *batch.completions]).encode()
        if not self._take_batch(batch, raw, lines):
            return False
        unused = set(names).difference(self.columns.values() or names, self.reading.left_out)
        for at, name in enumerate(names):
            if name in unused and any(row[at] for row in rows):
                self.reading.left_out[name] = None
        return True

    def _take_batch(self, batch: RecordBatch, raw: bytes, lines: Sequence[int]) -> bool:
        """Take plain records if they can be written and keep the limits.

        `raw` is what they were decoded from, `lines` has the line of each.
        """
        if not can_encode(batch, self.target) or not self.limits.within_limits(batch):
            return False
        self.sink.add_batch(batch)
        self.reading.add_batch(len(batch))
        self.traps.add_batch(batch, raw, lines)
        self.secrets.add_batch(batch, raw, lines)
        if self.keys is not None:
            self.keys.add_batch(batch, lines)
        self.on_count(len(batch))
        return True

    def _may_be_plain(self) -> bool:
        """Return whether messages had one type of content so far: that of the fast path."""
        content = CONTENT_TYPES.get(self.reading.format)
        return content is None or self.types.get("messages/content") is content

    def _read_row(self, row: Row) -> str:
        """Read one record into the sink; return its format, or "" when it can't be used."""
        value: JsonObject = row.value
        is_export = is_annotated(value)
        try:
            if is_export and self.columns:
                value = dict(flatten_record(value, self.columns))
            group = self._take_group(value)
            if self.missing_columns:
                self.missing_columns.difference_update(value)
            record = parse_record(value, self.columns, self.target)
            self.sink.add_record(record, group)
        except BadRecord as bad:
            self.blank.add(bad, value)
            self.context.add_bad_record(self._explain_by_others(bad, value), row.line)
            return ""
        self._check_types(value, row.line)
        if is_export:
            self._check_labels(row.value, row.line)
        for violation in self.limits.check_record(record):
            self._add(
                violation.code,
                violation.message,
                violation.fix,
                row.line,
                violation.field,
                violation.severity,
            )
        format = row.format or record.format
        self.reading.add_record(value, format, record.left_out)
        self.traps.add_record(record, row.line)
        self.secrets.add_record(record, row.line)
        if self.keys is not None:
            self.keys.add_record(record, row.line)
        return format

    def _explain_by_others(self, bad: BadRecord, value: RawRecord) -> BadRecord:
        """Return the error; for other keys than the records before have, with those as remedy.

        A line of `data.columns` holds for all records, and these can be read without one.
        """
        before = self.reading.first_keys()
        if bad.code != "WrongKeys" or bad.field is not None or self.columns or not before:
            return bad
        keys = ", ".join(repr(key[:40]) for key in before[:LISTED_KEYS])
        fix = f"give it the keys of the records before ({keys}), or take the record out"
        return BadRecord(bad.code, str(bad), fix)

    def _take_group(self, value: JsonObject) -> str | None:
        """Return the value of the key that groups records, and take the key out of the record."""
        if self.group_by is None:
            return None
        if self.group_by not in value:
            message = f"no key {self.group_by[:40]!r} (data.group_by)"
            raise BadRecord("WrongKeys", message, "give each record its group, or correct it")
        is_read = self.group_by in self.columns.values()
        return str(value[self.group_by] if is_read else value.pop(self.group_by))

    def _check_types(self, value: RawRecord, line: int) -> None:
        """Warn where a field has one type here and another in a record before."""
        # A null is no type: it is an empty field of its column.
        # Whole and other numbers are one type to Arrow.
        kinds = {key: type(inner) for key, inner in value.items() if inner is not None}
        types = {key: float if kind is int else kind for key, kind in kinds.items()}
        messages = value.get("messages")
        if isinstance(messages, list) and messages and isinstance(messages[0], dict):
            types["messages/content"] = type(messages[0].get("content"))
        for key, kind in types.items():
            if self.types.setdefault(key, kind) is not kind:
                message = f"{key[:40]!r} has another type than in records before; both are used"
                fix = "give it one type: loaders that go by Arrow refuse such a file"
                self._add("MixedTypes", message, fix, line, None, "warning")

    def _check_labels(self, value: RawRecord, line: int) -> None:
        """Warn of an answer with several labels."""
        if holds_several_labels(value):
            message = "an answer with several labels is written with a comma between them"
            fix = "take such records out if one label is to be learned"
            self._add("SeveralLabels", message, fix, line, None, "warning")

    def _warn_mixed_formats(self, line: int, format: str) -> None:
        if self.target == distillation.NAME and {format, self.reading.format} == SOME_ANSWERED:
            return
        message = (
            f"a record of format {format} after ones of format {self.reading.format}; both are used"
        )
        fix = "check that the file holds what you mean"
        self._add("MixedShapes", message, fix, line, None, "warning")

    def _add(
        self, code: str, message: str, fix: str, line: int, field: str | None, severity: Severity
    ) -> None:
        self.context.findings.add(
            code,
            message,
            fix,
            file=self.context.source.display_name,
            line=line,
            field=field,
            severity=severity,
        )
