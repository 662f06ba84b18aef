"""Find what staging would find, and write nothing: the data part of `cloudft check`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cloudft.data.checks.dataset_limits import DatasetLimits
from cloudft.data.checks.dataset_size import (
    has_enough_general,
    note_dataset_size,
    note_unsplittable,
)
from cloudft.data.checks.file_reading import note_reading
from cloudft.data.checks.held_out_leaks import has_held_out_files, warn_leaks
from cloudft.data.checks.record_counter import RecordCounter
from cloudft.data.checks.record_keys import RecordKeys
from cloudft.data.checks.repeated_records import warn_repeated_records
from cloudft.data.checks.validator import Validator, note_missing_columns
from cloudft.data.findings import Findings
from cloudft.data.sources.file_parts import count_cores, split_file
from cloudft.data.sources.line_blocks import ByteCounter, StreamDigest
from cloudft.data.sources.source_files import SourceFile, SourceResolver
from cloudft.data.staging.mix import general_record_counts
from cloudft.types import DataVolume, Finding, ManifestSource, role_field

if TYPE_CHECKING:
    from cloudft.data.checks.parallel_check import WholeFile
    from cloudft.spec.model import DataSpec


@dataclass(frozen=True)
class DataReport:
    """What is wrong, and how much data there would be, by role; None when there are errors.

    A share that is held out counts its characters as the average of the records.
    """

    findings: tuple[Finding, ...]
    volumes: Mapping[str, DataVolume] | None
    sources: tuple[ManifestSource, ...] = ()
    """What each file was read as; without a SHA-256 unless a digest was taken."""


def check_data(
    data: DataSpec,
    *,
    format: str,
    base_dir: Path,
    progress: Callable[[int], None] | None = None,
    digest: type[StreamDigest] = ByteCounter,
    limits: DatasetLimits | None = None,
) -> DataReport:
    """Read all of a job's data once, in constant memory and 30 bytes a record; write nothing.

    `format` is the one that the base model takes. Raises CloudRefused and CloudUnreachable for data
    in S3, and nothing else.
    """
    return _DataCheck(data, format, base_dir, progress, digest, limits).run()


class _DataCheck:
    """One pass over a job's data."""

    def __init__(
        self,
        data: DataSpec,
        format: str,
        base_dir: Path,
        progress: Callable[[int], None] | None,
        digest: type[StreamDigest],
        limits: DatasetLimits | None,
    ) -> None:
        self._data, self._format, self._limits = data, format, limits
        self._read_sources: list[ManifestSource] = []
        self._findings = Findings()
        self._columns = {str(name): column for name, column in data.columns.items()}
        self._validator = Validator(format, self._columns, self._findings, progress, digest, limits)
        # A digest needs the bytes in order; columns and groups are read record by record.
        self._may_split = digest is ByteCounter and not self._columns
        base_dir = Path(os.path.abspath(base_dir))  # noqa: PTH100  (links stay as they are named)
        self._sources = SourceResolver(base_dir, self._findings)

    def run(self) -> DataReport:
        """Return the findings, and the volumes if none of them is an error."""
        data, findings = self._data, self._findings
        counters = {}
        if data.train:  # without it the training data is logs, which a backend reads
            counters["train"] = self._count("train", "data.train", data.train)
        for role, paths in data.held_out_files.items():
            counters[role] = self._count(role, role_field(role), paths)
        general = [
            self._count("mix", f"data.mix.{index}.path", part.path)
            for index, part in enumerate(data.mix)
        ]
        self._validator.finish()
        note_missing_columns(self._columns, self._validator.missing_columns, findings)
        warn_repeated_records(findings, self._validator.keys, self._columns)
        warn_leaks(findings, self._validator.keys)
        volumes = None if findings.count_errors() else self._volumes(counters, general)
        if volumes and self._limits and data.train:
            note_dataset_size(findings, self._limits, volumes)
        sources = tuple(self._read_sources)
        return DataReport(findings.all(), None if findings.count_errors() else volumes, sources)

    def _count(self, role: str, field: str, patterns: tuple[str, ...]) -> RecordCounter:
        """Count the good records of the files that a field names."""
        counter = RecordCounter(self._format)
        group_by = self._data.group_by if role == "train" else None
        sources = self._sources.resolve(field, patterns)
        keys = self._validator.keys.setdefault(
            role, RecordKeys.for_files(sources, is_compared=has_held_out_files(self._data))
        )
        for source in sources:
            whole = None if group_by else self._count_in_parallel(source)
            if whole is None:
                read = self._validator.read_file(source, role, counter, group_by)
            else:
                part, read, hashes = whole
                counter.merge(*part.state())
                keys.start_file(source.display_name)
                keys.merge_lines(hashes)
                self._validator.add_count(len(part))
                note_reading(self._findings, read, source.display_name)
            self._read_sources.append(replace(read, role=role))
        return counter

    def _count_in_parallel(self, source: SourceFile) -> WholeFile | None:
        """Count a large flawless file in several processes; None for any other."""
        try:
            parts = split_file(source, count_cores()) if self._may_split else []
        except OSError:  # reading it will say so
            return None
        if not parts:
            return None
        from cloudft.data.checks import parallel_check

        limits = self._limits or DatasetLimits()
        report = self._validator.report_pending
        return parallel_check.count_in_parallel(parts, self._format, limits, report)

    def _volumes(
        self, counters: Mapping[str, RecordCounter], general: list[RecordCounter]
    ) -> dict[str, DataVolume]:
        """Return the volumes that staging would write, by role; add what is too few to split."""
        data, findings = self._data, self._findings
        volumes = {role: counter.estimate_volume() for role, counter in counters.items()}
        if isinstance(data.validation, float):
            train = counters["train"]
            held_out = min(max(1, round(data.validation * len(train))), len(train) - 1)
            if not train.has_distinct_records:
                note_unsplittable(findings, len(train))
            volumes["train"] = train.estimate_volume(len(train) - held_out)
            volumes["validation"] = train.estimate_volume(held_out)
        if "train" not in volumes:
            return volumes
        shares = [part.share for part in data.mix]
        by_records = general_record_counts(volumes["train"].records, shares)
        by_size = general_record_counts(volumes["train"].characters, shares)
        needed = [
            records if part.by == "records" else counter.estimate_records(size)
            for part, counter, records, size in zip(
                data.mix, general, by_records, by_size, strict=True
            )
        ]
        has_enough_general(findings, shares, needed, list(map(len, general)))
        parts = [c.estimate_volume(count) for c, count in zip(general, needed, strict=True)]
        volumes["train"] = _sum([volumes["train"], *parts])
        return volumes


def _sum(parts: list[DataVolume]) -> DataVolume:
    return DataVolume(
        sum(part.records for part in parts),
        sum(part.characters for part in parts),
        sum(part.tokens for part in parts),
    )
