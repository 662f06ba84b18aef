"""What staging would find, keeping nothing: the data part of `cloudft check`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cloudft.data import parallel
from cloudft.data.blocks import Digest, Size
from cloudft.data.findings import Findings
from cloudft.data.mix import counts
from cloudft.data.rules import Rules
from cloudft.data.shortage import enough_general, note_set, note_unsplittable
from cloudft.data.sources import Sources
from cloudft.data.tally import Tally
from cloudft.data.validate import Validator, note_unused_columns
from cloudft.types import Finding, Volume

if TYPE_CHECKING:
    from cloudft.spec.models import DataSpec


@dataclass(frozen=True)
class Examined:
    """What is wrong, and how much data there would be, by role; None when there are errors.

    A share that is held out counts its characters as the average of the records.
    """

    findings: tuple[Finding, ...]
    volumes: Mapping[str, Volume] | None


def examine(
    data: DataSpec,
    *,
    format: str,
    base_dir: Path,
    progress: Callable[[int], None] | None = None,
    digest: type[Digest] = Size,
    rules: Rules | None = None,
) -> Examined:
    """Read all of a job's data once, in constant memory; nothing is written.

    Raises AwsRefused and AwsUnreachable for data in S3, and nothing else.
    """
    findings = Findings()
    columns = {str(name): column for name, column in data.columns.items()}
    validator = Validator(format, columns, findings, progress, digest, rules)
    base_dir = Path(os.path.abspath(base_dir))  # noqa: PTH100  (links stay as they are named)
    sources = Sources(base_dir, findings)

    def tally(role: str, where: str, patterns: tuple[str, ...]) -> Tally:
        found = Tally(format)
        group_by = data.group_by if role == "train" else None
        for source in sources.files(where, patterns):
            whole = None
            if not columns and not group_by and digest is Size:
                whole = parallel.tally(source, format, rules or Rules(), validator.counting)
            if whole is None:
                validator.read(source, role, found, group_by)
            else:
                found.merge(*whole.state())
                validator.count(len(whole))
        return found

    tallies = {"train": tally("train", "data.train", data.train)}
    for role, paths in (("validation", data.validation), ("test", data.test)):
        if isinstance(paths, tuple):
            tallies[role] = tally(role, f"data.{role}", paths)
    general = [tally("mix", f"data.mix.{i}.path", p.path) for i, p in enumerate(data.mix)]
    validator.finish()
    if not validator.has_columns and not findings.errors():
        note_unused_columns(columns, findings)
    volumes = None if findings.errors() else _volumes(data, tallies, general, findings)
    if volumes and rules:
        note_set(findings, rules, volumes)
    return Examined(findings.all(), None if findings.errors() else volumes)


def _volumes(
    data: DataSpec, tallies: Mapping[str, Tally], general: list[Tally], findings: Findings
) -> dict[str, Volume]:
    volumes = {role: tally.volume() for role, tally in tallies.items()}
    if isinstance(data.validation, float):
        train = tallies["train"]
        held = min(max(1, round(data.validation * len(train))), len(train) - 1)
        if not train.various:
            note_unsplittable(findings, len(train))
        volumes["train"] = train.volume(len(train) - held)
        volumes["validation"] = train.volume(held)
    shares = [part.share for part in data.mix]
    by_records = counts(volumes["train"].records, shares)
    by_size = counts(volumes["train"].characters, shares)
    wanted = [
        records if part.by == "records" else tally.records_of(size)
        for part, tally, records, size in zip(data.mix, general, by_records, by_size, strict=True)
    ]
    enough_general(findings, shares, wanted, list(map(len, general)))
    parts = [tally.volume(count) for tally, count in zip(general, wanted, strict=True)]
    volumes["train"] = _sum([volumes["train"], *parts])
    return volumes


def _sum(parts: list[Volume]) -> Volume:
    return Volume(
        sum(part.records for part in parts),
        sum(part.characters for part in parts),
        sum(part.tokens for part in parts),
    )
