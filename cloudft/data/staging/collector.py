"""Write the job file's data as canonical files into one folder: read, convert, split, mix."""

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
from cloudft.data.checks.held_out_leaks import has_held_out_files, warn_leaks
from cloudft.data.checks.record_keys import RecordKeys
from cloudft.data.checks.repeated_records import warn_repeated_records
from cloudft.data.checks.validator import RecordSink, Validator, note_missing_columns
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
from cloudft.types import ManifestSource, StagedFile, is_validation_role, role_field

if TYPE_CHECKING:
    from numpy import bool_
    from numpy.typing import NDArray

    from cloudft.spec.model import DataSpec


class Collector:
    """One pass over a job's data, which fills `findings` and `sources`."""

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
        self._limits = limits or DatasetLimits()

    def collect(self, folder: Path) -> dict[str, StagedFile] | None:
        """Write the final files into `folder` and return them by role; None if there is an error.

        Raises OSError when the disk does not take them. Leaves other files beside them.
        """
        data = self._data
        final: dict[str, JsonlWriter] = {}
        if isinstance(data.validation, float) or data.mix:
            pool: CandidatePool | None = self._write_pool(
                folder, "pool-train", "data.train", data.train, "split"
            )
        else:
            pool = None
        if pool is None and data.train:
            final["train"] = self._write_role(folder, "train", "data.train", data.train)
        for role, paths in data.held_out_files.items():
            final[role] = self._write_role(folder, role, role_field(role), paths)
        general = [
            self._write_pool(folder, f"pool-mix-{i}", f"data.mix.{i}.path", part.path, "mix")
            for i, part in enumerate(data.mix)
        ]
        self._validator.finish()
        note_missing_columns(self._columns, self._validator.missing_columns, self.findings)
        warn_repeated_records(self.findings, self._validator.keys, self._columns)
        warn_leaks(self.findings, self._validator.keys)
        if pool is not None and not self.findings.count_errors():
            self._choose(folder, pool, general, final)
        if self.findings.count_errors():
            return None
        roles = ["train", *sorted(filter(is_validation_role, final)), "test"]
        files = {
            role: final[role].to_data_file(_file_name(role)) for role in roles if role in final
        }
        if data.train:
            note_dataset_size(self.findings, self._limits, files)
        return None if self.findings.count_errors() else files

    def _write_role(
        self, folder: Path, role: str, field: str, patterns: tuple[str, ...]
    ) -> JsonlWriter:
        """Write every record that a field names as the role's final file."""
        with JsonlWriter(folder / _file_name(role), self._target) as writer:
            self._read(field, patterns, role, writer)
        return writer

    def _write_pool(
        self, folder: Path, name: str, field: str, patterns: tuple[str, ...], purpose: str
    ) -> CandidatePool:
        """Write every record that a field names into a pool to choose from."""
        role = "train" if purpose == "split" else purpose
        with CandidatePool(folder / name, self._target, self._seed, purpose) as pool:
            self._read(field, patterns, role, pool)
        return pool

    def _read(self, field: str, patterns: tuple[str, ...], role: str, sink: RecordSink) -> None:
        group_by = self._data.group_by if role == "train" else None
        sources = self._sources.resolve(field, patterns)
        self._validator.keys.setdefault(
            role, RecordKeys.for_files(sources, is_compared=has_held_out_files(self._data))
        )
        for source in sources:
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
            with JsonlWriter(folder / _file_name("validation")) as writer:
                copy_selected(train, held, writer)
            final["validation"] = writer
        counts = self._general_counts(train, ~held, general)
        if counts is None:
            return
        parts = [(train, ~held)]
        parts += [
            (pool, select_lowest_keys(pool.selection_keys(), count))
            for pool, count in zip(general, counts, strict=True)
        ]
        with JsonlWriter(folder / _file_name("train")) as writer:
            if general:
                copy_interleaved(parts, writer)
            else:
                copy_selected(*parts[0], writer)
        final["train"] = writer

    def _general_counts(
        self, train: CandidatePool, marks: NDArray[bool_], general: list[CandidatePool]
    ) -> list[int] | None:
        """Return how many records of each general part are mixed in; None if one has too few."""
        parts = self._data.mix
        shares = [part.share for part in parts]
        by_records = general_record_counts(int(marks.sum()), shares)
        by_size = general_record_counts(int(train.record_lengths()[marks].sum()), shares)
        needed = [
            records
            if part.by == "records"
            else count_records_for_size(pool.selection_keys(), pool.record_lengths(), size)
            or len(pool) + 1
            for part, pool, records, size in zip(parts, general, by_records, by_size, strict=True)
        ]
        available = list(map(len, general))
        is_enough = has_enough_general(self.findings, shares, needed, available)
        return needed if is_enough else None


def _file_name(role: str) -> str:
    """Return the name of a role's canonical file."""
    return f"{role}.jsonl"


def copy_selected(pool: CandidatePool, marks: NDArray[bool_], writer: JsonlWriter) -> None:
    """Write the marked lines of a pool, in order."""
    sizes = pool.record_lengths()
    for chunk in pool.iter_chunks():
        here = marks[chunk.indices]
        writer.add_lines(compress(chunk.lines, here), int(sizes[chunk.indices][here].sum()))


def copy_interleaved(
    parts: Sequence[tuple[CandidatePool, NDArray[bool_]]], writer: JsonlWriter
) -> None:
    """Write the marked lines of several pools, each spread evenly over the whole."""
    streams = [
        (int(marks.sum()), compress(zip(_lines(pool), pool.record_lengths(), strict=True), marks))
        for pool, marks in parts
    ]
    for line, size in interleave(streams):
        writer.add_lines((line,), int(size))


def _lines(pool: CandidatePool) -> Iterator[bytes]:
    return chain.from_iterable(chunk.lines for chunk in pool.iter_chunks())
