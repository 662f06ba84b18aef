"""Detect what a data file holds, by its first records: for `cloudft init --data`.

Records are recognized by parsing them. Where their own keys match no format, the columns are those
that `check` would propose, if it proposes one line; otherwise a person chooses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from cloudft.data.findings import Findings
from cloudft.data.formats.columns_line import LINE_START
from cloudft.data.formats.proposals import propose_pairs
from cloudft.data.formats.recognizer import detect_format, parse_record
from cloudft.data.formats.record import BadRecord, RawRecord
from cloudft.data.formats.record_format import RecordFormat
from cloudft.data.formats.registry import get_format
from cloudft.data.sources.row_reader import ReadContext, read_rows
from cloudft.data.sources.source_files import SourceFile

MAX_ROWS = 200
"""Records that are read."""


@dataclass(frozen=True)
class FileDetection:
    """What a file holds. `columns` is what `data.columns` must say; empty if nothing.

    `matched` of the first `seen` records are in that format.
    """

    file_type: str
    format: RecordFormat
    columns: Mapping[str, str]
    evidence: str
    matched: int
    seen: int


def detect_file(source: SourceFile, findings: Findings) -> FileDetection | None:
    """Return what the file holds, None if no format fits its records.

    What can't be read is added to `findings`.
    """
    rows = list(islice(read_rows(ReadContext(source, findings)), MAX_ROWS))
    values = [row.value for row in rows if isinstance(row.value, dict)]
    if rows and rows[0].format == "document":
        evidence = f"a {source.path.suffix} file, read as one text"
        return FileDetection(
            source.file_type, get_format("text"), {}, evidence, len(rows), len(rows)
        )
    found = detect_format(values)
    columns: Mapping[str, str] = {}
    if found is None and values:
        columns = choose_columns(values)
        found = detect_format(values, columns) if columns else None
    if found is None:
        return None
    evidence = found.evidence
    if columns:
        names = " and ".join(repr(name) for name in columns.values())
        evidence = f"the {'columns' if len(columns) > 1 else 'column'} {names}"
    return FileDetection(
        source.file_type, found.format, columns, evidence, found.matched, found.seen
    )


def choose_columns(values: Sequence[RawRecord]) -> dict[str, str]:
    """Return the columns that all records propose; empty unless there is exactly one choice.

    Records with a second reading, or that are refused by name, are not read by their columns.
    """
    choices: list[dict[str, str]] = []
    for value in values:
        try:
            parse_record(value, {})
        except BadRecord as bad:
            is_proposal = bad.code == "WrongKeys" and bad.fix.startswith(LINE_START)
            proposed = propose_pairs(value) if is_proposal else []
            if len(proposed) != 1 or choices not in ([], proposed):
                return {}
            choices = proposed
    return choices[0] if choices else {}


def explain_undetected(value: RawRecord, columns: Mapping[str, str]) -> BadRecord | None:
    """Return what is wrong with a record, None if it can be read."""
    try:
        parse_record(value, columns)
    except BadRecord as bad:
        return bad
    return None
