"""Convert, split, mix and deduplicate data files into new ones. Nothing is overwritten.

Every function raises CheckFailed with all findings when a record can't be used, and UsageError when
the output exists already; then nothing is written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from cloudft.data.analysis.duplicates import Duplicate, find_duplicates
from cloudft.data.checks.dataset_size import has_enough_general, note_unsplittable
from cloudft.data.checks.validator import Validator, note_missing_columns
from cloudft.data.findings import Findings
from cloudft.data.formats.columns_line import with_options
from cloudft.data.formats.recognizer import parse_record
from cloudft.data.formats.record import BadRecord
from cloudft.data.formats.registry import find_format
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
    """One call: how records are read, and the findings about them."""

    columns: Mapping[str, str] = field(default_factory=dict)
    seed: int = 7
    progress: Callable[[int], None] | None = None
    findings: Findings = field(default_factory=Findings)

    missing_columns: set[str] = field(default_factory=set)
    """Those of `columns` that no record has had."""

    def __post_init__(self) -> None:
        self._sources = SourceResolver(Path.cwd(), self.findings)
        self._has_read = False

    def convert(
        self, inputs: Sequence[str], target: str, out: Path, *, by_line: bool = False
    ) -> StagedFile:
        """Write all records into the new file `out`, in a target of `data convert`, or csv.

        With `by_line` each line of a text file is a document.
        """
        sources = self._files("IN", inputs)
        if by_line:
            kinds = {"text": "text lines"}
            sources = [replace(s, file_type=kinds.get(s.file_type, s.file_type)) for s in sources]
        with new_output_file(out) as temporary:
            sink = CsvWriter(temporary) if target == "csv" else JsonlWriter(temporary, target)
            with sink:
                self._read(sources, "" if target == "csv" else target, sink)
            self._raise_errors()
        if isinstance(sink, CsvWriter) and sink.formula_rows:
            self.findings.add(
                "SpreadsheetFormula",
                f"records that begin like a formula, kept as they are: {sink.formula_rows}",
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
        """Write the records of each share, and the rest as `train`, into `out/SIDE.jsonl`."""
        sources = self._files("IN", inputs)
        target = target or self._output_format(sources)
        with self._pool_folder() as folder:
            pool = self._write_pool(folder / "all", sources, target, "split", group_by)
            sides = self._sides(pool, shares, stratify)
            self._raise_errors()
            with as_store_error(f"{out} can't be written", out):
                out.mkdir(parents=True, exist_ok=True)
            return {
                side: self._write(out / f"{side}.jsonl", [(pool, marks)])
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
        """Write the records into the new file `out`, with a share of general ones among them."""
        import numpy as np

        sources = self._files("IN", inputs)
        target = target or self._output_format(sources)
        with self._pool_folder() as folder:
            own = self._write_pool(folder / "own", sources, target, "mix")
            others = self._write_pool(
                folder / "general", self._files("--with", general), target, "mix"
            )
            self._raise_errors()
            [count] = general_record_counts(len(own), [share])
            if by == "tokens":
                [size] = general_record_counts(int(own.record_lengths().sum()), [share])
                count = (
                    count_records_for_size(others.selection_keys(), others.record_lengths(), size)
                    or len(others) + 1
                )
            has_enough_general(self.findings, [share], [count], [len(others)])
            self._raise_errors()
            parts = [
                (own, np.ones(len(own), np.bool_)),
                (others, select_lowest_keys(others.selection_keys(), count)),
            ]
            return self._write(out, parts)

    def dedupe(
        self, inputs: Sequence[str], out: Path, *, near: float | None, target: str | None = None
    ) -> tuple[StagedFile, list[Duplicate]]:
        """Write the records without duplicates into the new file `out`; return these as well.

        `near` is the least similarity that counts (near_duplicates.py); None compares exactly.
        """
        sources = self._files("IN", inputs)
        target = target or self._output_format(sources)
        left_out = []
        with new_output_file(out) as temporary:
            with JsonlWriter(temporary, target) as writer:
                records = read_records(sources, self.findings, self.columns, self.progress)
                for record, duplicate in find_duplicates(records, near):
                    if duplicate is not None:
                        left_out.append(duplicate)
                        continue
                    try:
                        writer.add_record(record.record)
                    except BadRecord as bad:
                        self._note(bad, record.file, record.line)
            self._raise_errors()
        return writer.to_data_file(out.name), left_out

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
        missing = validator.missing_columns
        self.missing_columns = self.missing_columns & missing if self._has_read else missing
        self._has_read = True

    def _output_format(self, sources: Sequence[SourceFile]) -> str:
        """Return the format of the first good record: files keep their format where they can."""
        for source in sources:
            for row in read_rows(ReadContext(source, Findings(), columns=self.columns)):
                try:
                    format = find_format(parse_record(row.value, self.columns).format)
                except BadRecord:
                    continue
                if format is not None:
                    return format.name if format.write else format.rewrite_as
        return "prompt-completion"

    @contextmanager
    def _pool_folder(self) -> Iterator[Path]:
        with TemporaryDirectory(prefix="cloudft-") as folder:
            yield Path(folder)

    def _write_pool(
        self,
        path: Path,
        sources: Sequence[SourceFile],
        target: str,
        purpose: str,
        group_by: str | None = None,
    ) -> CandidatePool:
        with CandidatePool(path, target, self.seed, purpose) as pool:
            self._read(sources, target, pool, group_by)
        return pool

    def _sides(
        self, pool: CandidatePool, shares: Mapping[str, float], stratify: bool
    ) -> dict[str, NDArray[bool_]]:
        """Return a mark for each record on each side."""
        import numpy as np

        keys, labels = pool.selection_keys(), pool.label_codes() if stratify else None
        left, sides, remaining = np.ones(len(pool), np.bool_), {}, 1.0
        for side, share in shares.items():
            here = hold_out(keys[left], share / remaining, None if labels is None else labels[left])
            if here is None:
                note_unsplittable(self.findings, len(pool))
                break
            marks = np.zeros(len(pool), np.bool_)
            marks[np.flatnonzero(left)[here]] = True
            sides[side], left, remaining = marks, left & ~marks, remaining - share
        return {"train": left, **sides}

    def _write(
        self, out: Path, parts: Sequence[tuple[CandidatePool, NDArray[bool_]]]
    ) -> StagedFile:
        with new_output_file(out) as temporary, JsonlWriter(temporary) as writer:
            if len(parts) == 1:
                copy_selected(*parts[0], writer)
            else:
                copy_interleaved(parts, writer)
        return writer.to_data_file(out.name)

    def _note(self, bad: BadRecord, file: str, line: int) -> None:
        self.findings.add(bad.code, bad.message, bad.fix, file=file, line=line, field=bad.field)

    def _raise_errors(self) -> None:
        note_missing_columns(self.columns, self.missing_columns, self.findings)
        if self.findings.count_errors():
            listed = with_options(self.findings.all(), type_option="--to")
            raise CheckFailed(next(f.message for f in listed if f.severity == "error"), listed)


@contextmanager
def new_output_file(out: Path) -> Iterator[Path]:
    """Yield a temporary path that becomes `out` if the block succeeds.

    Raises UsageError if `out` exists or its folder does not, StoreError if it can't be written.
    """
    if not os.path.isdir(out.parent):  # noqa: PTH112  (Path.is_dir raises for a name too long)
        raise UsageError(f"there is no folder {out.parent}", file=str(out), fix="create it first")
    with as_store_error(f"{out} can't be written", out):
        try:
            with create_file_atomically(out) as temporary:
                yield temporary
        except FileExistsError as error:
            message = f"{out} exists already; nothing was written"
            raise UsageError(message, file=str(out), fix="name another file") from error
