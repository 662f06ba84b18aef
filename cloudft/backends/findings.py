"""Findings of a backend's checks, with their location in the job file."""

from __future__ import annotations

from dataclasses import dataclass

from cloudft.spec.load import LoadedJob
from cloudft.types import Finding, Severity


@dataclass(frozen=True)
class FindingFactory:
    """Creates findings about a job, with file and line of the field they are about."""

    job: LoadedJob

    def __call__(
        self, code: str, field: str, message: str, fix: str, severity: Severity = "error"
    ) -> Finding:
        """Return one finding."""
        file = str(self.job.path) if self.job.path else None
        return Finding(severity, code, message, fix, file, self.job.line_of(field), field)
