"""The job file's data as canonical files in one folder: read, convert, split, mix."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING

from cloudft.data.convert import canonical, parse
from cloudft.data.findings import Findings
from cloudft.data.mix import chosen, counts, interleave
from cloudft.data.read import Reading, Row, rows
from cloudft.data.record import BadRecord
from cloudft.data.sources import SourceFile, Sources
from cloudft.data.split import held_out_up_to
from cloudft.data.spool import Line, Spool
from cloudft.types import DataFile, Source

if TYPE_CHECKING:
    from cloudft.spec.models import DataSpec

EVERY = 1000  # records between two reports of progress
NAMES = {role: f"{role}.jsonl" for role in ("train", "validation", "test")}


class Collector:
    """One pass over a job's data. `findings` and `read_from` fill as it goes."""

    def __init__(
        self,
        data: DataSpec,
        target: str,
        seed: int,
        base_dir: Path,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.findings = Findings()
        self.read_from: list[Source] = []
        self._data, self._target, self._seed = data, target, seed
        self._columns = {str(name): column for name, column in data.columns.items()}
        base_dir = Path(os.path.abspath(base_dir))  # noqa: PTH100  (links stay as they are named)
        self._sources = Sources(base_dir, self.findings)
        self._progress = progress or (lambda _: None)
        self._count = 0

    def collect(self, folder: Path) -> dict[str, DataFile] | None:
        """Write the final files into `folder`, by role; None when an error was found.

        Raises OSError when the disk does not take them. Leaves other files beside them.
        """
        data = self._data
        train = self._spool(folder, "all-train", "train", "data.train", data.train, "split")
        final: dict[str, Spool] = {}
        for role, paths in (("validation", data.validation), ("test", data.test)):
            if isinstance(paths, tuple):
                final[role] = self._spool(folder, NAMES[role], role, f"data.{role}", paths)
        general = [
            self._spool(folder, f"all-mix-{i}", "mix", f"data.mix.{i}.path", part.path, "mix")
            for i, part in enumerate(data.mix)
        ]
        self._progress(self._count)
        if isinstance(data.validation, float) and not self.findings.errors():
            train, final["validation"] = self._split(folder, train, data.validation)
        if general and not self.findings.errors():
            train = self._mix(folder, train, general)
        if self.findings.errors():
            return None
        train.path.rename(folder / NAMES["train"])
        final["train"] = train
        return {role: final[role].data_file(NAMES[role]) for role in NAMES if role in final}

    def _spool(
        self,
        folder: Path,
        name: str,
        role: str,
        where: str,
        patterns: tuple[str, ...],
        purpose: str = "",
    ) -> Spool:
        """Every record that field `where` names, in canonical form, in order."""
        with Spool(folder / name, self._seed, purpose) as spool:
            for source in self._sources.files(where, patterns):
                self._read(source, role, spool)
        return spool

    def _read(self, source: SourceFile, role: str, spool: Spool) -> None:
        """One file's records into a spool; its bad ones into the findings."""
        reading = Reading(source, self.findings)
        before, shape = len(spool), ""
        for row in rows(reading):
            found = self._convert(reading, row, spool)
            if found and shape and found != shape:
                self._mixed_shapes(source, row.line, shape, found)
            shape = shape or found
            self._count += 1
            if self._count % EVERY == 0:
                self._progress(self._count)
        records = len(spool) - before
        if not records and not self.findings.errors(source.shown):
            fix = "put records into it, or leave it out"
            reading.note("NoRecords", "the file holds no records", fix)
        sha256 = reading.digest.hexdigest()
        self.read_from.append(Source(role, source.name, sha256, reading.size, records, shape))

    def _convert(self, reading: Reading, row: Row, spool: Spool) -> str:
        """Write one record; its shape, or "" when it can't be used."""
        value = row.value
        assert isinstance(value, dict)  # read.py lets nothing else through
        try:
            record = parse(value, self._columns)
            spool.write(Line(*canonical(record, self._target)))
        except BadRecord as bad:
            file, line = reading.source.shown, row.line
            self.findings.note(
                bad.code, bad.message, bad.fix, file=file, line=line, field=bad.field
            )
            return ""
        return row.shape or record.shape

    def _mixed_shapes(self, source: SourceFile, line: int, first: str, found: str) -> None:
        self.findings.note(
            "MixedShapes",
            f"a record of shape {found} after ones of shape {first}; both are used",
            "check that the file holds what you mean",
            file=source.shown,
            line=line,
            severity="warning",
        )

    def _split(self, folder: Path, train: Spool, share: float) -> tuple[Spool, Spool]:
        """The records that stay and the ones held out, each in the source's order."""
        cut = held_out_up_to(train.keys, share)
        if cut is None:
            message = f"{len(train)} records can't be split: one side would have none"
            fix = "give more (different) records, or a validation file"
            self.findings.note("TooFewRecords", message, fix, field="data.validation")
            return train, train
        with Spool(folder / "own-train") as kept, Spool(folder / NAMES["validation"]) as held:
            for key, line in zip(train.keys, train, strict=True):
                (held if key <= cut else kept).write(line)
        return kept, held

    def _mix(self, folder: Path, train: Spool, general: list[Spool]) -> Spool:
        """The training records with the asked shares of general ones spread among them."""
        wanted = counts(len(train), [part.share for part in self._data.mix])
        for index, (spool, count) in enumerate(zip(general, wanted, strict=True)):
            if count > len(spool):
                message = f"a share of {self._data.mix[index].share} takes {count} records"
                message += f" of general data; there are {len(spool)}"
                fix = "give more general data or a smaller share"
                self.findings.note("TooFewRecords", message, fix, field=f"data.mix.{index}.share")
                return train
        streams: list[tuple[int, Iterator[Line]]] = [(len(train), iter(train))]
        for spool, count in zip(general, wanted, strict=True):
            streams.append((count, compress(spool, chosen(spool.keys, count))))
        with Spool(folder / "mixed-train") as mixed:
            for line in interleave(streams):
                mixed.write(line)
        return mixed
