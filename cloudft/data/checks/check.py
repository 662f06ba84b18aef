"""What staging would find, keeping nothing: the data part of `cloudft check`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cloudft.data.checks import parallel_check
from cloudft.data.checks.dataset_limits import DatasetLimits
from cloudft.data.checks.dataset_size import (
    has_enough_general,
    note_dataset_size,
    note_unsplittable,
)
from cloudft.data.checks.record_counter import RecordCounter
from cloudft.data.checks.validator import Validator, note_unused_columns
from cloudft.data.findings import Findings
from cloudft.data.sources.line_blocks import ByteCounter, StreamDigest
from cloudft.data.sources.source_files import SourceResolver
from cloudft.data.staging.mix import general_record_counts
from cloudft.types import DataVolume, Finding

if TYPE_CHECKING:
    from cloudft.spec.model import DataSpec


@dataclass(frozen=True)
class DataReport:
    """What is wrong, and how much data there would be, by role; None when there are errors.

    A share that is held out counts its characters as the average of the records.
    """

    findings: tuple[Finding, ...]
    volumes: Mapping[str, DataVolume] | None


def check_data(
    data: DataSpec,
    *,
    format: str,
    base_dir: Path,
    progress: Callable[[int], None] | None = None,
    digest: type[StreamDigest] = ByteCounter,
    limits: DatasetLimits | None = None,
) -> DataReport:
    """Read all of a job's data once, in constant memory; nothing is written.

    Raises AwsRefused and AwsUnreachable for data in S3, and nothing else.
    """
    findings = Findings()
    columns = {str(name): column for name, column in data.columns.items()}
    validator = Validator(format, columns, findings, progress, digest, limits)
    base_dir = Path(os.path.abspath(base_dir))  # noqa: PTH100  (links stay as they are named)
    sources = SourceResolver(base_dir, findings)

    def tally(role: str, where: str, patterns: tuple[str, ...]) -> RecordCounter:
        found = RecordCounter(format)
        group_by = data.group_by if role == "train" else None
        for source in sources.resolve(where, patterns):
            whole = None
            if not columns and not group_by and digest is ByteCounter:
                whole = parallel_check.count_in_parallel(
                    source, format, limits or DatasetLimits(), validator.report_pending
                )
            if whole is None:
                validator.read_file(source, role, found, group_by)
            else:
                found.merge(*whole.state())
                validator.add_count(len(whole))
        return found

    tallies = {"train": tally("train", "data.train", data.train)}
    for role, paths in (("validation", data.validation), ("test", data.test)):
        if isinstance(paths, tuple):
            tallies[role] = tally(role, f"data.{role}", paths)
    general = [tally("mix", f"data.mix.{i}.path", p.path) for i, p in enumerate(data.mix)]
    validator.finish()
    if not validator.has_columns and not findings.count_errors():
        note_unused_columns(columns, findings)
    volumes = None if findings.count_errors() else _volumes(data, tallies, general, findings)
    if volumes and limits:
        note_dataset_size(findings, limits, volumes)
    return DataReport(findings.all(), None if findings.count_errors() else volumes)


def _volumes(
    data: DataSpec,
    tallies: Mapping[str, RecordCounter],
    general: list[RecordCounter],
    findings: Findings,
) -> dict[str, DataVolume]:
    volumes = {role: tally.estimate_volume() for role, tally in tallies.items()}
    if isinstance(data.validation, float):
        train = tallies["train"]
        held = min(max(1, round(data.validation * len(train))), len(train) - 1)
        if not train.has_distinct_records:
            note_unsplittable(findings, len(train))
        volumes["train"] = train.estimate_volume(len(train) - held)
        volumes["validation"] = train.estimate_volume(held)
    shares = [part.share for part in data.mix]
    by_records = general_record_counts(volumes["train"].records, shares)
    by_size = general_record_counts(volumes["train"].characters, shares)
    wanted = [
        records if part.by == "records" else tally.estimate_records(size)
        for part, tally, records, size in zip(data.mix, general, by_records, by_size, strict=True)
    ]
    has_enough_general(findings, shares, wanted, list(map(len, general)))
    parts = [tally.estimate_volume(count) for tally, count in zip(general, wanted, strict=True)]
    volumes["train"] = _sum([volumes["train"], *parts])
    return volumes


def _sum(parts: list[DataVolume]) -> DataVolume:
    return DataVolume(
        sum(part.records for part in parts),
        sum(part.characters for part in parts),
        sum(part.tokens for part in parts),
    )
