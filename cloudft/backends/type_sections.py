"""Check that a job has the sections of its customization type, and none of another: any backend."""

from __future__ import annotations

from collections.abc import Iterator

from cloudft.backends.findings import FindingFactory
from cloudft.catalogue import CUSTOMIZATION_TYPES
from cloudft.spec.load import LoadedJob
from cloudft.types import Finding


def check_type_sections(job: LoadedJob, finding: FindingFactory) -> Iterator[Finding]:
    """Yield an error for each section and setting that the job's type would silently ignore."""
    name = job.spec.customization_type
    job_type = CUSTOMIZATION_TYPES[name]
    for other in CUSTOMIZATION_TYPES.values():
        if other.section is None or getattr(job.spec, other.section) is None:
            continue
        if other.section != job_type.section:
            message = f"the section {other.section} has no meaning for {name}"
            fix = f"set customization_type: {other.name}, or remove the section."
            yield finding("UnusedValue", other.section, message, fix)
    if job_type.has_own_hyperparameters and job.spec.hyperparameters:
        message = f"{name} takes its own hyperparameters"
        fix = f"move them to {job_type.section}.hyperparameters."
        yield finding("UnusedValue", "hyperparameters", message, fix)
