"""Read the records of some files, one after another, each with its file and line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from cloudft.data.findings import Findings
from cloudft.data.formats.recognizer import parse_record
from cloudft.data.formats.record import BadRecord, Record
from cloudft.data.sources.row_reader import ReadContext, read_rows
from cloudft.data.sources.source_files import SourceFile

PROGRESS_INTERVAL = 1000
"""Records between two reports of progress."""


@dataclass(frozen=True)
class LocatedRecord:
    """One record. `line` counts from 1 in `file` (in Parquet it is the row)."""

    file: str
    line: int
    record: Record


def read_records(
    sources: Iterable[SourceFile],
    findings: Findings,
    columns: Mapping[str, str],
    progress: Callable[[int], None] | None = None,
    target: str = "",
) -> Iterator[LocatedRecord]:
    """Yield every good record, in order; add to `findings` what is wrong with the others.

    `progress` gets the number of records read so far. `target` is the format that a job stages
    them in: texts without answers and prompts alone are read for some formats only.
    """
    count = 0
    for source in sources:
        context = ReadContext(source, findings, columns=columns)
        for row in read_rows(context):
            count += 1
            if progress and count % PROGRESS_INTERVAL == 0:
                progress(count)
            try:
                record = parse_record(row.value, columns, target)
            except BadRecord as bad:
                context.add_bad_record(bad, row.line)
            else:
                yield LocatedRecord(source.display_name, row.line, record)
    if progress:
        progress(count)
