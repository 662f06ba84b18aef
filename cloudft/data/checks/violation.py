"""What a check of a base model's limits reports."""

from __future__ import annotations

from dataclasses import dataclass

from cloudft.types import Severity


@dataclass(frozen=True)
class LimitViolation:
    """A limit that is broken. `field` is a JSON pointer, or a key of the job file."""

    severity: Severity
    code: str
    message: str
    fix: str
    field: str | None = None
