"""The job file's data as canonical files in one folder: read, convert, split, mix."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, compress
from pathlib import Path
from typing import TYPE_CHECKING

from cloudft.data.checks.dataset_limits import DatasetLimits
from cloudft.data.checks.dataset_size import (
    has_enough_general,
    note_dataset_size,
    note_unsplittable,
)
from cloudft.data.checks.validator import RecordSink, Validator, note_unused_columns
from cloudft.data.findings import Findings
from cloudft.data.sources.source_files import SourceResolver
from cloudft.data.staging.candidate_pool import CandidatePool
from cloudft.data.staging.jsonl_writer import JsonlWriter
from cloudft.data.staging.mix import (
    count_records_for_size,
    general_record_counts,
    interleave,
    select_lowest_keys,
)
from cloudft.data.staging.split import hold_out
from cloudft.types import ManifestSource, StagedFile

if TYPE_CHECKING:
    from numpy import bool_
    from numpy.typing import NDArray

    from cloudft.spec.model import DataSpec

FILE_NAMES = {role: f"{role}.jsonl" for role in ("train", "validation", "test")}


class Collector:
    """One pass over a job's data. `findings` and `read_from` fill as it goes."""

    def __init__(
        self,
        data: DataSpec,
        target: str,
        seed: int,
        base_dir: Path,
        progress: Callable[[int], None] | None = None,
        limits: DatasetLimits | None = None,
    ) -> None:
        self.findings = Findings()
        self.sources: list[ManifestSource] = []
        self._data, self._target, self._seed = data, target, seed
        base_dir = Path(os.path.abspath(base_dir))  # noqa: PTH100  (links stay as they are named)
        self._sources = SourceResolver(base_dir, self.findings)
        self._columns = {str(name): column for name, column in data.columns.items()}
        self._validator = Validator(target, self._columns, self.findings, progress, limits=limits)
        self._rules = limits or DatasetLimits()

    def collect(self, folder: Path) -> dict[str, StagedFile] | None:
        """Write the final files into `folder`, by role; None when an error was found.

        Raises OSError when the disk does not take them. Leaves other files beside them.
        """
        data = self._data
        final: dict[str, JsonlWriter] = {}
        if isinstance(data.validation, float) or data.mix:
            draft: CandidatePool | None = self._draft(
                folder, "draft-train", "data.train", data.train, "split"
            )
        else:
            draft = None
            final["train"] = self._spool(folder, "train", "data.train", data.train)
        for role, paths in (("validation", data.validation), ("test", data.test)):
            if isinstance(paths, tuple):
                final[role] = self._spool(folder, role, f"data.{role}", paths)
        general = [
            self._draft(folder, f"draft-mix-{i}", f"data.mix.{i}.path", part.path, "mix")
            for i, part in enumerate(data.mix)
        ]
        self._validator.finish()
        if not self._validator.has_columns and not self.findings.count_errors():
            note_unused_columns(self._columns, self.findings)
        if draft is not None and not self.findings.count_errors():
            self._choose(folder, draft, general, final)
        if self.findings.count_errors():
            return None
        files = {
            role: final[role].to_data_file(FILE_NAMES[role]) for role in FILE_NAMES if role in final
        }
        note_dataset_size(self.findings, self._rules, files)
        return None if self.findings.count_errors() else files

    def _spool(self, folder: Path, role: str, where: str, patterns: tuple[str, ...]) -> JsonlWriter:
        """Every record that field `where` names, as the role's final file."""
        with JsonlWriter(folder / FILE_NAMES[role], self._target) as spool:
            self._read(where, patterns, role, spool)
        return spool

    def _draft(
        self, folder: Path, name: str, where: str, patterns: tuple[str, ...], purpose: str
    ) -> CandidatePool:
        """Every record that field `where` names, to choose from."""
        role = "train" if purpose == "split" else purpose
        with CandidatePool(folder / name, self._target, self._seed, purpose) as draft:
            self._read(where, patterns, role, draft)
        return draft

    def _read(self, where: str, patterns: tuple[str, ...], role: str, sink: RecordSink) -> None:
        group_by = self._data.group_by if role == "train" else None
        for source in self._sources.resolve(where, patterns):
            self.sources.append(self._validator.read_file(source, role, sink, group_by))

    def _choose(
        self,
        folder: Path,
        train: CandidatePool,
        general: list[CandidatePool],
        final: dict[str, JsonlWriter],
    ) -> None:
        """Hold out the validation share, then mix general records among those that stay."""
        import numpy as np

        held = np.zeros(len(train), np.bool_)
        if isinstance(self._data.validation, float):
            labels = train.label_codes() if self._data.stratify else None
            marks = hold_out(train.selection_keys(), self._data.validation, labels)
            if marks is None:
                note_unsplittable(self.findings, len(train))
                return
            held = marks
            with JsonlWriter(folder / FILE_NAMES["validation"]) as spool:
                copy_selected(train, held, spool)
            final["validation"] = spool
        wanted = self._how_many(train, ~held, general)
        if wanted is None:
            return
        parts = [(train, ~held)]
        parts += [
            (d, select_lowest_keys(d.selection_keys(), n))
            for d, n in zip(general, wanted, strict=True)
        ]
        with JsonlWriter(folder / FILE_NAMES["train"]) as spool:
            if general:
                copy_interleaved(parts, spool)
            else:
                copy_selected(*parts[0], spool)
        final["train"] = spool

    def _how_many(
        self, train: CandidatePool, marks: NDArray[bool_], general: list[CandidatePool]
    ) -> list[int] | None:
        """How many records of each general part are mixed in; None when one has too few."""
        parts = self._data.mix
        shares = [part.share for part in parts]
        by_records = general_record_counts(int(marks.sum()), shares)
        by_size = general_record_counts(int(train.record_lengths()[marks].sum()), shares)
        wanted = [
            records
            if part.by == "records"
            else count_records_for_size(draft.selection_keys(), draft.record_lengths(), size)
            or len(draft) + 1
            for part, draft, records, size in zip(parts, general, by_records, by_size, strict=True)
        ]
        there = list(map(len, general))
        return wanted if has_enough_general(self.findings, shares, wanted, there) else None


def copy_selected(draft: CandidatePool, marks: NDArray[bool_], spool: JsonlWriter) -> None:
    """The marked lines of a draft, in order."""
    sizes = draft.record_lengths()
    for chunk in draft.iter_chunks():
        here = marks[chunk.indices]
        spool.add_lines(compress(chunk.lines, here), int(sizes[chunk.indices][here].sum()))


def copy_interleaved(
    parts: Sequence[tuple[CandidatePool, NDArray[bool_]]], spool: JsonlWriter
) -> None:
    """The marked lines of several drafts, each spread evenly over the whole."""
    streams = [
        (int(marks.sum()), compress(zip(_lines(draft), draft.record_lengths(), strict=True), marks))
        for draft, marks in parts
    ]
    for line, size in interleave(streams):
        spool.add_lines((line,), int(size))


def _lines(draft: CandidatePool) -> Iterator[bytes]:
    return chain.from_iterable(chunk.lines for chunk in draft.iter_chunks())
