"""Report numbers of records that are too small or too large, for check and staging alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cloudft.data.checks.dataset_limits import DatasetLimits
from cloudft.data.findings import Findings
from cloudft.types import DataVolume


def note_unsplittable(findings: Findings, records: int) -> None:
    """Add an error: no validation set can be held out of so few, or so equal, records."""
    message = f"{records} records can't be split: one side would have none"
    fix = "give more (different) records, or a validation file"
    findings.add("TooFewRecords", message, fix, field="data.validation")


def has_enough_general(
    findings: Findings, shares: Sequence[float], needed: Sequence[int], available: Sequence[int]
) -> bool:
    """Return whether each part of `data.mix` has as many records as its share takes.

    If one has too few, add an error.
    """
    for index, (share, count, limit) in enumerate(zip(shares, needed, available, strict=True)):
        if count > limit:
            message = f"a share of {share} takes more general data than the {limit} records here"
            fix = "give more general data or a smaller share"
            findings.add("TooFewRecords", message, fix, field=f"data.mix.{index}.share")
            return False
    return True


def note_dataset_size(
    findings: Findings, limits: DatasetLimits, volumes: Mapping[str, DataVolume]
) -> None:
    """Add a finding for more or fewer records than the base model takes."""
    for violation in limits.check_dataset(volumes):
        findings.add(
            violation.code,
            violation.message,
            violation.fix,
            field=violation.field,
            severity=violation.severity,
        )
