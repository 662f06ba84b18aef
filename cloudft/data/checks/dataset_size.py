"""Numbers of records that will not do: said in the same words by check and by staging."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cloudft.data.checks.dataset_limits import DatasetLimits
from cloudft.data.findings import Findings
from cloudft.types import DataVolume


def note_unsplittable(findings: Findings, records: int) -> None:
    """No validation set can be held out of so few, or so equal, records."""
    message = f"{records} records can't be split: one side would have none"
    fix = "give more (different) records, or a validation file"
    findings.add("TooFewRecords", message, fix, field="data.validation")


def has_enough_general(
    findings: Findings, shares: Sequence[float], wanted: Sequence[int], there: Sequence[int]
) -> bool:
    """True when every part of `mix` has as many records as its share takes; else one is noted."""
    for index, (share, take, count) in enumerate(zip(shares, wanted, there, strict=True)):
        if take > count:
            message = (
                f"a share of {share} takes more general data than the {count} records there are"
            )
            fix = "give more general data or a smaller share"
            findings.add("TooFewRecords", message, fix, field=f"data.mix.{index}.share")
            return False
    return True


def note_dataset_size(
    findings: Findings, rules: DatasetLimits, volumes: Mapping[str, DataVolume]
) -> None:
    """More or fewer records than the base model takes."""
    for problem in rules.check_dataset(volumes):
        findings.add(
            problem.code,
            problem.message,
            problem.fix,
            field=problem.field,
            severity=problem.severity,
        )
