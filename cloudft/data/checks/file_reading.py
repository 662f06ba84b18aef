"""Collect what a file was read as: its format, what shows it, and which keys were left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from cloudft.data.findings import Findings
from cloudft.data.formats.columns_line import columns_line
from cloudft.data.formats.key_roles import is_meaningful
from cloudft.data.formats.proposals import TEXT_TASK, propose_columns, with_further_column
from cloudft.data.formats.record import BadRecord, RawRecord
from cloudft.data.formats.registry import find_format, format_title
from cloudft.data.sources.line_blocks import StreamDigest
from cloudft.types import ManifestSource

SAMPLED_RECORDS = 5
"""Records of a file that are described."""
LISTED_KEYS = 10
CANONICAL_FORMATS = frozenset(
    {
        *("prompt-completion", "input-output", "instruction", "input", "text", "document"),
        *("messages", "converse", "claude-messages", "reinforcement", "prompt"),
    }
)
"""Formats that the documentation names: that a file has one needs no note."""


@dataclass
class FileReading:
    """The reading of one file, record by record. `format` is that of its first record."""

    columns: Mapping[str, str]
    format: str = ""
    records: Counter[str] = field(default_factory=Counter)
    left_out: dict[str, None] = field(default_factory=dict)
    _sample: list[RawRecord] = field(default_factory=list)
    _used_columns: bool = False

    def add_record(self, value: RawRecord, format: str, left_out: tuple[str, ...]) -> None:
        """Add one record that was parsed."""
        self.format = self.format or format
        self.records[format] += 1
        if left_out:
            self.left_out.update(dict.fromkeys(left_out))
        if format == self.format and len(self._sample) < SAMPLED_RECORDS:
            self._sample.append(value)
            self._used_columns |= any(column in value for column in self.columns.values())

    def add_batch(self, records: int) -> None:
        """Add plain records in the file's format."""
        self.records[self.format] += records

    def to_manifest_source(self, role: str, path: str, digest: StreamDigest) -> ManifestSource:
        """Return what the whole file was."""
        return ManifestSource(
            role=role,
            path=path,
            sha256=digest.hexdigest(),
            bytes=digest.size,
            records=self.records.total(),
            shape=self.format,
            read_as=self.title(),
            evidence=self.evidence(),
            matched=self.records[self.format],
            left_out=tuple(self.left_out),
        )

    def first_keys(self) -> tuple[str, ...]:
        """Return the keys of the first record; none before it was read."""
        return tuple(self._sample[0]) if self._sample else ()

    def title(self) -> str:
        """Return the format in words."""
        return format_title(self.format)

    def evidence(self) -> str:
        """Return what in the records shows the format."""
        format = find_format(self.format)
        if self._used_columns:
            return ", ".join(f"{theirs!r} as {ours}" for ours, theirs in self.columns.items())
        if format is None or not self._sample:
            return ""
        return format.describe(self._sample)


@dataclass
class BlankFields:
    """The one field that is blank in every record of a file: these are texts without answers."""

    fields: Counter[str] = field(default_factory=Counter)
    others: int = 0
    _columns: Mapping[str, str] = field(default_factory=dict)

    def add(self, bad: BadRecord, value: RawRecord) -> None:
        """Count a record that can't be used."""
        if bad.code != "EmptyField" or bad.field is None:
            self.others += 1
            return
        self.fields[bad.field] += 1
        if not self._columns:
            self._columns = next(iter(propose_columns(value, is_labeled=False)), {})

    def add_error(self, findings: Findings, file: str) -> None:
        """Add an error if all records have the same field blank, and a text beside it."""
        if self.others or len(self.fields) != 1 or self.fields.total() < 2 or not self._columns:
            return
        [name] = self.fields
        message = f"{name.lstrip('/')!r} is empty in all {self.fields.total()} records"
        fix = f"to train on the texts alone: {columns_line(self._columns)} with {TEXT_TASK}"
        findings.add("AllEmpty", message, fix, file=file)


def note_reading(findings: Findings, source: ManifestSource, file: str) -> None:
    """Add a note that says what the file was read as, unless that goes without saying."""
    is_usual = source.shape in CANONICAL_FORMATS and "->" not in source.evidence
    if not source.shape or (is_usual and not source.left_out):
        return
    shown = ", ".join(source.left_out[:LISTED_KEYS])
    more = f" and {len(source.left_out) - LISTED_KEYS} more" * (len(source.left_out) > LISTED_KEYS)
    message = f"read as {source.read_as}" + f": {source.evidence}" * bool(source.evidence)
    if source.matched < source.records:
        message += f" ({source.matched} of {source.records} records)"
    if source.left_out:
        message += f"; left out: {shown}{more}"
    findings.add("ReadAs", message, "", file=file, severity="note")


def warn_columns_left_out(
    findings: Findings, source: ManifestSource, file: str, columns: Mapping[str, str]
) -> None:
    """Add a warning for each column that may carry meaning and that `data.columns` leaves out."""
    for key in source.left_out if columns else ():
        if not is_meaningful(key):
            continue
        message = f"the column {key[:40]!r} is left out: data.columns does not name it"
        more = with_further_column(columns, key)
        fix = f"to use it: {columns_line(more)}" if more else "leave it so if it says nothing"
        findings.add("ColumnLeftOut", message, fix, file=file, severity="warning")
