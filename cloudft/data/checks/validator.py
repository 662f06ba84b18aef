"""The one pass over data: bytes are read once, hashed, decoded, checked; good records go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from cloudft.data.checks.dataset_limits import DatasetLimits
from cloudft.data.findings import Findings
from cloudft.data.formats.fast_path import RecordBatch, can_encode, decode_batch
from cloudft.data.formats.record import BadRecord, Conversation, Document
from cloudft.data.formats.registry import parse_record
from cloudft.data.sources.line_blocks import Block, StreamDigest
from cloudft.data.sources.row_reader import ReadContext, Row, read_json_rows, read_rows
from cloudft.data.sources.source_files import SourceFile
from cloudft.types import ManifestSource, Severity

PROGRESS_INTERVAL = 1000
"""Records between two reports of progress."""


class RecordSink(Protocol):
    """What takes the good records: it counts them, or writes them down."""

    def add_record(self, record: Conversation | Document, group: str | None = None) -> None:
        """Take one, of a group. Raises BadRecord when it does not fit."""

    def add_batch(self, columns: RecordBatch) -> None:
        """Take a block of plain ones."""


class Validator:
    """Reads files, one after another. `findings` takes what is wrong with them.

    `types` are those of the fields of the last file's records, where they were looked at singly.

    Blocks of plain JSONL records of the shape that came before are checked as a whole
    (columns.py); all others record by record.
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
        self._rules = limits or DatasetLimits()
        self._digest = digest
        self._progress = progress or (lambda _: None)
        self._count = self._told = 0
        self.field_types: Mapping[str, type] = {}
        self.has_columns = not columns
        """Whether a record had one of the columns, if some are named."""

    def read_file(
        self, source: SourceFile, role: str, sink: RecordSink, group_by: str | None = None
    ) -> ManifestSource:
        """One file's good records into `sink`; what the file was. Raises nothing of its own.

        `group_by` names a key of the records that is no part of them, and goes to the sink.
        """
        reading = ReadContext(source, self._findings, self._digest())
        file = _File(
            reading, sink, self._target, self._columns, self._rules, group_by, self.add_count
        )
        before = self._count
        file.read()
        count = self._count - before
        if not count and not self._findings.count_errors(source.display_name):
            fix = "put records into it, or leave it out"
            reading.add_error("NoRecords", "the file holds no records", fix)
        self.field_types = file.types
        self.has_columns |= file.has_columns
        digest = reading.digest.hexdigest()
        return ManifestSource(role, source.name, digest, reading.digest.size, count, file.shape)

    def report_pending(self, records: int) -> None:
        """Tell of records that are being read elsewhere, and are not counted yet."""
        self._progress(self._count + records)

    def add_count(self, records: int) -> None:
        """Count so many more records."""
        self._count += records
        if self._count - self._told >= PROGRESS_INTERVAL:
            self._told = self._count
            self._progress(self._count)

    def finish(self) -> None:
        """Tell the final count."""
        self._progress(self._count)


def note_unused_columns(columns: Mapping[str, str], findings: Findings) -> None:
    """Note columns that no record has: what was meant by them is not what is read."""
    names = ", ".join(repr(name[:40]) for name in list(columns.values())[:10])
    message = f"no record has a column {names} (data.columns, --column)"
    fix = "correct the names, or leave them out: the records are read by their own keys"
    findings.add("UnusedColumns", message, fix, field="data.columns")


@dataclass
class _File:
    """The pass over one file. `shape` is that of its first record."""

    reading: ReadContext
    sink: RecordSink
    target: str
    names: Mapping[str, str]
    rules: DatasetLimits
    group_by: str | None
    counted: Callable[[int], None]
    shape: str = ""
    types: dict[str, type] = field(default_factory=dict)
    has_columns: bool = False

    def read(self) -> None:
        """All of it."""
        for row in read_rows(self.reading, None if self.names or self.group_by else self._rows):
            shape = self._hand_on(row)
            if shape:
                self.counted(1)
                if self.shape and shape != self.shape:
                    self._mixed_shapes(row.line, shape)
                self.shape = self.shape or shape

    def _rows(self, block: Block) -> Iterator[Row]:
        """The rows of a block that have to be looked at one by one: all of them, or none."""
        columns = decode_batch(self.shape, block.raw, block.line_count)
        plain = (
            columns is not None
            and can_encode(columns, self.target)
            and self.rules.within_limits(columns)
        )
        if columns is None or not plain:
            yield from read_json_rows(self.reading, block)
        else:
            self.sink.add_batch(columns)
            self.counted(len(columns))

    def _hand_on(self, row: Row) -> str:
        """Hand one record on; its shape, or "" when it can't be used."""
        value = row.value
        assert isinstance(value, dict)  # read.py lets nothing else through
        try:
            group = self._group(value)
            self.has_columns = self.has_columns or any(n in value for n in self.names.values())
            record = parse_record(value, self.names, self.target)
            self.sink.add_record(record, group)
            self._see_types(value, row.line)
            for problem in self.rules.check_record(record):
                self._note(
                    problem.code,
                    problem.message,
                    problem.fix,
                    row.line,
                    problem.field,
                    problem.severity,
                )
        except BadRecord as bad:
            self._note(bad.code, bad.message, bad.fix, row.line, bad.field)
            return ""
        return row.format or record.format

    def _group(self, value: dict[str, Any]) -> str | None:
        """The value of the key that groups records, taken out of the record."""
        if self.group_by is None:
            return None
        if self.group_by not in value:
            message = f"no key {self.group_by[:40]!r} (data.group_by)"
            raise BadRecord("WrongKeys", message, "give each record its group, or correct it")
        in_use = self.group_by in self.names.values()
        return str(value[self.group_by] if in_use else value.pop(self.group_by))

    def _see_types(self, value: Mapping[str, Any], line: int) -> None:
        """Warn where a field has one type here and another there, which tables can't hold."""
        types = {key: type(inner) for key, inner in value.items()}
        if "messages" in types:
            types["messages/content"] = type(value["messages"][0]["content"])
        for key, kind in types.items():
            if self.types.setdefault(key, kind) is not kind:
                message = f"{key[:40]!r} has another type than in records before; both are used"
                fix = "give it one type: loaders that go by Arrow refuse such a file"
                self._note("MixedTypes", message, fix, line, None, "warning")

    def _mixed_shapes(self, line: int, found: str) -> None:
        message = f"a record of shape {found} after ones of shape {self.shape}; both are used"
        fix = "check that the file holds what you mean"
        self._note("MixedShapes", message, fix, line, None, "warning")

    def _note(
        self,
        code: str,
        message: str,
        fix: str,
        line: int,
        field: str | None,
        severity: Severity = "error",
    ) -> None:
        self.reading.findings.add(
            code,
            message,
            fix,
            file=self.reading.source.display_name,
            line=line,
            field=field,
            severity=severity,
        )
