"""Data files to data files: converted, split, mixed, with twins taken out. Nothing is overwritten.

Every function raises CheckFailed with all findings when a record can't be used, and UsageError when
something stands where the output is to go; then nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from cloudft.data.analysis.duplicates import Duplicate, find_duplicates
from cloudft.data.checks.dataset_size import has_enough_general, note_unsplittable
from cloudft.data.checks.validator import Validator, note_unused_columns
from cloudft.data.findings import Findings
from cloudft.data.formats.record import BadRecord
from cloudft.data.formats.registry import find_format, parse_record
from cloudft.data.records import read_records
from cloudft.data.sources.row_reader import ReadContext, read_rows
from cloudft.data.sources.source_files import SourceFile, SourceResolver
from cloudft.data.staging.candidate_pool import CandidatePool
from cloudft.data.staging.collector import copy_interleaved, copy_selected
from cloudft.data.staging.csv_writer import CsvWriter
from cloudft.data.staging.jsonl_writer import JsonlWriter
from cloudft.data.staging.mix import (
    count_records_for_size,
    general_record_counts,
    select_lowest_keys,
)
from cloudft.data.staging.split import hold_out
from cloudft.errors import CheckFailed, UsageError
from cloudft.storage.atomic_files import as_store_error, create_file_atomically
from cloudft.types import StagedFile

if TYPE_CHECKING:
    from numpy import bool_
    from numpy.typing import NDArray


@dataclass
class DatasetTransform:
    """One call: how records are read, and what was found wrong with them."""

    columns: Mapping[str, str] = field(default_factory=dict)
    seed: int = 7
    progress: Callable[[int], None] | None = None
    findings: Findings = field(default_factory=Findings)

    has_columns: bool | None = None
    """Whether a record had one of `columns`; None before any was read."""

    def __post_init__(self) -> None:
        self._sources = SourceResolver(Path.cwd(), self.findings)

    def convert(self, inputs: Sequence[str], target: str, out: Path) -> StagedFile:
        """All records in format `target` (`convert.FORMATS`, or csv) in the new file `out`."""
        sources = self._files("IN", inputs)
        with new_output_file(out) as temporary:
            sink = CsvWriter(temporary) if target == "csv" else JsonlWriter(temporary, target)
            with sink:
                self._read(sources, "" if target == "csv" else target, sink)
            self._raise_errors()
        if isinstance(sink, CsvWriter) and sink.formula_rows:
            self.findings.add(
                "SpreadsheetFormula",
                f"records that begin as a formula does, kept as they are: {sink.formula_rows}",
                "open it in a spreadsheet only with its columns imported as text",
                file=str(out),
                severity="warning",
            )
        return sink.to_data_file(out.name)

    def split(
        self,
        inputs: Sequence[str],
        shares: Mapping[str, float],
        out: Path,
        *,
        target: str | None = None,
        group_by: str | None = None,
        stratify: bool = True,
    ) -> dict[str, StagedFile]:
        """The records on sides: each share's, and `train`, as `out/SIDE.jsonl`."""
        sources = self._files("IN", inputs)
        target = target or self._shape(sources)
        with self._drafts() as folder:
            draft = self._draft(folder / "all", sources, target, "split", group_by)
            sides = self._sides(draft, shares, stratify)
            self._raise_errors()
            with as_store_error(f"{out} can't be written", out):
                out.mkdir(parents=True, exist_ok=True)
            return {
                side: self._write(out / f"{side}.jsonl", [(draft, marks)])
                for side, marks in sides.items()
            }

    def mix(
        self,
        inputs: Sequence[str],
        general: Sequence[str],
        share: float,
        out: Path,
        *,
        by: str = "records",
        target: str | None = None,
    ) -> StagedFile:
        """The records with a share of general ones spread among them, in the new file `out`."""
        import numpy as np

        sources = self._files("IN", inputs)
        target = target or self._shape(sources)
        with self._drafts() as folder:
            own = self._draft(folder / "own", sources, target, "mix")
            others = self._draft(folder / "general", self._files("--with", general), target, "mix")
            self._raise_errors()
            [wanted] = general_record_counts(len(own), [share])
            if by == "tokens":
                [size] = general_record_counts(int(own.record_lengths().sum()), [share])
                wanted = (
                    count_records_for_size(others.selection_keys(), others.record_lengths(), size)
                    or len(others) + 1
                )
            has_enough_general(self.findings, [share], [wanted], [len(others)])
            self._raise_errors()
            parts = [
                (own, np.ones(len(own), np.bool_)),
                (others, select_lowest_keys(others.selection_keys(), wanted)),
            ]
            return self._write(out, parts)

    def dedupe(
        self, inputs: Sequence[str], out: Path, *, near: float | None, target: str | None = None
    ) -> tuple[StagedFile, list[Duplicate]]:
        """The first of all like records, in the new file `out`; and the ones left out."""
        sources = self._files("IN", inputs)
        target = target or self._shape(sources)
        left_out = []
        with new_output_file(out) as temporary:
            with JsonlWriter(temporary, target) as spool:
                records = read_records(sources, self.findings, self.columns, self.progress)
                for record, twin in find_duplicates(records, near):
                    if twin is not None:
                        left_out.append(twin)
                        continue
                    try:
                        spool.add_record(record.record)
                    except BadRecord as bad:
                        self._note(bad, record.file, record.line)
            self._raise_errors()
        return spool.to_data_file(out.name), left_out

    def _files(self, where: str, patterns: Sequence[str]) -> list[SourceFile]:
        return self._sources.resolve(where, patterns)

    def _read(
        self,
        sources: Sequence[SourceFile],
        target: str,
        sink: JsonlWriter | CandidatePool | CsvWriter,
        group_by: str | None = None,
    ) -> None:
        validator = Validator(target, self.columns, self.findings, self.progress)
        for source in sources:
            validator.read_file(source, "", sink, group_by)
        validator.finish()
        self.has_columns = bool(self.has_columns) or validator.has_columns

    def _shape(self, sources: Sequence[SourceFile]) -> str:
        """The format of the first good record, so that files keep their shape where they can."""
        for source in sources:
            for row in read_rows(ReadContext(source, Findings())):
                try:
                    assert isinstance(row.value, dict)
                    format = find_format(parse_record(row.value, self.columns).format)
                except BadRecord:
                    continue
                if format is not None:
                    return format.name if format.write else format.rewrite_as
        return "prompt-completion"

    @contextmanager
    def _drafts(self) -> Iterator[Path]:
        with TemporaryDirectory(prefix="cloudft-") as folder:
            yield Path(folder)

    def _draft(
        self,
        path: Path,
        sources: Sequence[SourceFile],
        target: str,
        purpose: str,
        group_by: str | None = None,
    ) -> CandidatePool:
        with CandidatePool(path, target, self.seed, purpose) as draft:
            self._read(sources, target, draft, group_by)
        return draft

    def _sides(
        self, draft: CandidatePool, shares: Mapping[str, float], stratify: bool
    ) -> dict[str, NDArray[bool_]]:
        """A mark for each record on each side."""
        import numpy as np

        keys, labels = draft.selection_keys(), draft.label_codes() if stratify else None
        left, sides, room = np.ones(len(draft), np.bool_), {}, 1.0
        for side, share in shares.items():
            here = hold_out(keys[left], share / room, None if labels is None else labels[left])
            if here is None:
                note_unsplittable(self.findings, len(draft))
                break
            marks = np.zeros(len(draft), np.bool_)
            marks[np.flatnonzero(left)[here]] = True
            sides[side], left, room = marks, left & ~marks, room - share
        return {"train": left, **sides}

    def _write(
        self, out: Path, parts: Sequence[tuple[CandidatePool, NDArray[bool_]]]
    ) -> StagedFile:
        with new_output_file(out) as temporary, JsonlWriter(temporary) as spool:
            if len(parts) == 1:
                copy_selected(*parts[0], spool)
            else:
                copy_interleaved(parts, spool)
        return spool.to_data_file(out.name)

    def _note(self, bad: BadRecord, file: str, line: int) -> None:
        self.findings.add(bad.code, bad.message, bad.fix, file=file, line=line, field=bad.field)

    def _raise_errors(self) -> None:
        if self.has_columns is False and not self.findings.count_errors():
            note_unused_columns(self.columns, self.findings)
        if self.findings.count_errors():
            listed = self.findings.all()
            raise CheckFailed(next(f.message for f in listed if f.severity == "error"), listed)


@contextmanager
def new_output_file(out: Path) -> Iterator[Path]:
    """A temporary path that becomes `out` when all went well. Raises UsageError, StoreError."""
    with as_store_error(f"{out} can't be written", out):
        try:
            with create_file_atomically(out) as temporary:
                yield temporary
        except FileExistsError as error:
            message = f"{out} exists already; nothing was written"
            raise UsageError(message, file=str(out), fix="name another file") from error
