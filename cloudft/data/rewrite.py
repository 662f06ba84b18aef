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

from cloudft.data.collect import copy, copy_interleaved
from cloudft.data.convert import FORMATS, parse
from cloudft.data.dedupe import Twin, twins
from cloudft.data.draft import Draft
from cloudft.data.findings import Findings
from cloudft.data.mix import chosen, counts, enough
from cloudft.data.read import Reading, rows
from cloudft.data.record import BadRecord
from cloudft.data.records import located
from cloudft.data.shortage import enough_general, note_unsplittable
from cloudft.data.sources import SourceFile, Sources
from cloudft.data.split import hold_out
from cloudft.data.spool import Spool
from cloudft.data.table import CsvFile
from cloudft.data.validate import Validator, note_unused_columns
from cloudft.errors import CheckFailed, UsageError
from cloudft.files import as_store_error, new_file
from cloudft.types import DataFile

if TYPE_CHECKING:
    from numpy import bool_
    from numpy.typing import NDArray


@dataclass
class Rewriting:
    """One call: how records are read, and what was found wrong with them."""

    columns: Mapping[str, str] = field(default_factory=dict)
    seed: int = 7
    progress: Callable[[int], None] | None = None
    findings: Findings = field(default_factory=Findings)

    has_columns: bool | None = None
    """Whether a record had one of `columns`; None before any was read."""

    def __post_init__(self) -> None:
        self._sources = Sources(Path.cwd(), self.findings)

    def convert(self, inputs: Sequence[str], target: str, out: Path) -> DataFile:
        """All records in format `target` (`convert.FORMATS`, or csv) in the new file `out`."""
        sources = self._files("IN", inputs)
        with output(out) as temporary:
            sink = CsvFile(temporary) if target == "csv" else Spool(temporary, target)
            with sink:
                self._read(sources, "" if target == "csv" else target, sink)
            self._raise_errors()
        if isinstance(sink, CsvFile) and sink.formulas:
            self.findings.note(
                "SpreadsheetFormula",
                f"records that begin as a formula does, kept as they are: {sink.formulas}",
                "open it in a spreadsheet only with its columns imported as text",
                file=str(out),
                severity="warning",
            )
        return sink.data_file(out.name)

    def split(
        self,
        inputs: Sequence[str],
        shares: Mapping[str, float],
        out: Path,
        *,
        target: str | None = None,
        group_by: str | None = None,
        stratify: bool = True,
    ) -> dict[str, DataFile]:
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
    ) -> DataFile:
        """The records with a share of general ones spread among them, in the new file `out`."""
        import numpy as np

        sources = self._files("IN", inputs)
        target = target or self._shape(sources)
        with self._drafts() as folder:
            own = self._draft(folder / "own", sources, target, "mix")
            others = self._draft(folder / "general", self._files("--with", general), target, "mix")
            self._raise_errors()
            [wanted] = counts(len(own), [share])
            if by == "tokens":
                [size] = counts(int(own.sizes().sum()), [share])
                wanted = enough(others.keys(), others.sizes(), size) or len(others) + 1
            enough_general(self.findings, [share], [wanted], [len(others)])
            self._raise_errors()
            parts = [(own, np.ones(len(own), np.bool_)), (others, chosen(others.keys(), wanted))]
            return self._write(out, parts)

    def dedupe(
        self, inputs: Sequence[str], out: Path, *, near: float | None, target: str | None = None
    ) -> tuple[DataFile, list[Twin]]:
        """The first of all like records, in the new file `out`; and the ones left out."""
        sources = self._files("IN", inputs)
        target = target or self._shape(sources)
        left_out = []
        with output(out) as temporary:
            with Spool(temporary, target) as spool:
                records = located(sources, self.findings, self.columns, self.progress)
                for record, twin in twins(records, near):
                    if twin is not None:
                        left_out.append(twin)
                        continue
                    try:
                        spool.record(record.record)
                    except BadRecord as bad:
                        self._note(bad, record.file, record.line)
            self._raise_errors()
        return spool.data_file(out.name), left_out

    def _files(self, where: str, patterns: Sequence[str]) -> list[SourceFile]:
        return self._sources.files(where, patterns)

    def _read(
        self,
        sources: Sequence[SourceFile],
        target: str,
        sink: Spool | Draft | CsvFile,
        group_by: str | None = None,
    ) -> None:
        validator = Validator(target, self.columns, self.findings, self.progress)
        for source in sources:
            validator.read(source, "", sink, group_by)
        validator.finish()
        self.has_columns = bool(self.has_columns) or validator.has_columns

    def _shape(self, sources: Sequence[SourceFile]) -> str:
        """The format of the first good record, so that files keep their shape where they can."""
        for source in sources:
            for row in rows(Reading(source, Findings())):
                try:
                    assert isinstance(row.value, dict)
                    shape = parse(row.value, self.columns).shape
                except BadRecord:
                    continue
                return shape if shape in FORMATS else _NEAREST.get(shape, "prompt-completion")
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
    ) -> Draft:
        with Draft(path, target, self.seed, purpose) as draft:
            self._read(sources, target, draft, group_by)
        return draft

    def _sides(
        self, draft: Draft, shares: Mapping[str, float], stratify: bool
    ) -> dict[str, NDArray[bool_]]:
        """A mark for each record on each side."""
        import numpy as np

        keys, labels = draft.keys(), draft.labels() if stratify else None
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

    def _write(self, out: Path, parts: Sequence[tuple[Draft, NDArray[bool_]]]) -> DataFile:
        with output(out) as temporary, Spool(temporary) as spool:
            if len(parts) == 1:
                copy(*parts[0], spool)
            else:
                copy_interleaved(parts, spool)
        return spool.data_file(out.name)

    def _note(self, bad: BadRecord, file: str, line: int) -> None:
        self.findings.note(bad.code, bad.message, bad.fix, file=file, line=line, field=bad.field)

    def _raise_errors(self) -> None:
        if self.has_columns is False and not self.findings.errors():
            note_unused_columns(self.columns, self.findings)
        if self.findings.errors():
            listed = self.findings.all()
            raise CheckFailed(next(f.message for f in listed if f.severity == "error"), listed)


_NEAREST = {"instruction": "prompt-completion", "document": "text"}


@contextmanager
def output(out: Path) -> Iterator[Path]:
    """A temporary path that becomes `out` when all went well. Raises UsageError, StoreError."""
    with as_store_error(f"{out} can't be written", out):
        try:
            with new_file(out) as temporary:
                yield temporary
        except FileExistsError as error:
            message = f"{out} exists already; nothing was written"
            raise UsageError(message, file=str(out), fix="name another file") from error
