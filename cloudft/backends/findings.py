"""Findings of a backend's checks, with their location in the job file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cloudft import catalogue
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


def serverless_hint(job: LoadedJob, field: str, finding: FindingFactory) -> Iterator[Finding]:
    """Yield a warning where SageMaker's serverless customization does what the job wants."""
    techniques = catalogue.techniques_for(job.spec.customization_type)
    listed = catalogue.find_serverless_model(job.model)
    if listed is None or not techniques or not set(techniques) & set(listed.techniques):
        return
    offer, fix = (
        catalogue.describe_offer(listed, techniques),
        catalogue.offer_fix(listed, techniques),
    )
    yield finding("ServerlessServes", field, offer, fix, "warning")
