"""The records of some files, one after another, each with its place: for all that looks at data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from cloudft.data.findings import Findings
from cloudft.data.formats.record import BadRecord, Conversation, Document
from cloudft.data.formats.registry import parse_record
from cloudft.data.sources.row_reader import ReadContext, read_rows
from cloudft.data.sources.source_files import SourceFile

PROGRESS_INTERVAL = 1000
"""Records between two reports of progress."""


@dataclass(frozen=True)
class LocatedRecord:
    """One record. `line` counts from 1 in `file` (in Parquet it is the row)."""

    file: str
    line: int
    record: Conversation | Document


def read_records(
    sources: Iterable[SourceFile],
    findings: Findings,
    columns: Mapping[str, str],
    progress: Callable[[int], None] | None = None,
) -> Iterator[LocatedRecord]:
    """Every good record, in order; what is wrong goes into `findings`, the rest goes on.

    `progress` is told the number of records so far.
    """
    count = 0
    for source in sources:
        for row in read_rows(ReadContext(source, findings)):
            count += 1
            if progress and count % PROGRESS_INTERVAL == 0:
                progress(count)
            value = row.value
            assert isinstance(value, dict)  # read.py lets nothing else through
            try:
                yield LocatedRecord(source.display_name, row.line, parse_record(value, columns))
            except BadRecord as bad:
                findings.add(
                    bad.code,
                    bad.message,
                    bad.fix,
                    file=source.display_name,
                    line=row.line,
                    field=bad.field,
                )
    if progress:
        progress(count)
