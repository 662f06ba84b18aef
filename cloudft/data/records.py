"""The records of some files, one after another, each with its place: for all that looks at data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from cloudft.data.convert import parse
from cloudft.data.findings import Findings
from cloudft.data.read import Reading, rows
from cloudft.data.record import BadRecord, Document, Turns
from cloudft.data.sources import SourceFile

EVERY = 1000
"""Records between two reports of progress."""


@dataclass(frozen=True)
class Located:
    """One record. `line` counts from 1 in `file` (in Parquet it is the row)."""

    file: str
    line: int
    record: Turns | Document


def located(
    sources: Iterable[SourceFile],
    findings: Findings,
    columns: Mapping[str, str],
    progress: Callable[[int], None] | None = None,
) -> Iterator[Located]:
    """Every good record, in order; what is wrong goes into `findings`, the rest goes on.

    `progress` is told the number of records so far.
    """
    count = 0
    for source in sources:
        for row in rows(Reading(source, findings)):
            count += 1
            if progress and count % EVERY == 0:
                progress(count)
            value = row.value
            assert isinstance(value, dict)  # read.py lets nothing else through
            try:
                yield Located(source.shown, row.line, parse(value, columns))
            except BadRecord as bad:
                findings.note(
                    bad.code,
                    bad.message,
                    bad.fix,
                    file=source.shown,
                    line=row.line,
                    field=bad.field,
                )
    if progress:
        progress(count)
