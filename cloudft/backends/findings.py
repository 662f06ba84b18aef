"""How a backend's checks make a finding."""

from __future__ import annotations

from dataclasses import dataclass

from cloudft.spec.load import LoadedJob
from cloudft.types import Finding, Severity


@dataclass(frozen=True)
class FindingFactory:
    """Findings about a job, with their place in its file."""

    job: LoadedJob

    def __call__(
        self, code: str, field: str, message: str, fix: str, severity: Severity = "error"
    ) -> Finding:
        """One finding."""
        file = str(self.job.path) if self.job.path else None
        return Finding(severity, code, message, fix, file, self.job.line_of(field), field)
