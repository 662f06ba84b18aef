"""Fill in values that a job file leaves unset, such as a stack's outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from pydantic import ValidationError

from cloudft.errors import CheckFailed
from cloudft.spec.load import LoadedJob
from cloudft.spec.merge import Origin
from cloudft.spec.sections import Section
from cloudft.spec.yaml_source import JobTree
from cloudft.types import Finding

SectionName = str
"""The key of a registered section (sections.py)."""


def is_unset(job: LoadedJob, section: SectionName, name: str) -> bool:
    """Return whether nothing was given for a field of that section, not even null."""
    return name not in getattr(job.spec, section).model_fields_set


def with_defaults(
    job: LoadedJob,
    section: SectionName,
    values: JobTree,
    origins: Mapping[str, Origin],
) -> LoadedJob:
    """Return the job with `values` for those fields of a section that are unset.

    `origins` has one for each value. Raises CheckFailed for a value that its field does not take.
    """
    new = {name: value for name, value in values.items() if is_unset(job, section, name)}
    current: Section = getattr(job.spec, section)
    given = current.model_dump(exclude_unset=True)
    try:
        filled = type(current).model_validate({**given, **new})
    except ValidationError as error:
        faults = error.errors(include_url=False)
        findings = [
            _refused_value(job, section, str(fault["loc"][0]), fault["msg"], origins)
            for fault in faults
        ]
        raise CheckFailed(findings[0].message, findings) from error
    spec = job.spec.model_copy(update={section: filled})
    return dataclasses.replace(job, spec=spec, origins=_add_origins(job, section, new, origins))


def _refused_value(
    job: LoadedJob, section: str, name: str, reason: str, origins: Mapping[str, Origin]
) -> Finding:
    field, where = f"{section}.{name}", origins[name].where
    message = f"{field}: {reason} (from the {where})"
    fix = f"set {field} in the job file, or correct the {where}."
    file = str(job.path) if job.path else None
    return Finding("error", "BadValue", message, fix, file, job.line_of(field), field)


def _add_origins(
    job: LoadedJob, section: str, new: JobTree, origins: Mapping[str, Origin]
) -> Mapping[str, Origin]:
    """Return the origins of every leaf: all leaves of a mapping have its origin."""
    merged = dict(job.origins)
    for name, value in new.items():
        field = f"{section}.{name}"
        merged.pop(field, None)
        leaves = [f"{field}.{leaf}" for leaf in value] if isinstance(value, Mapping) else [field]
        merged |= dict.fromkeys(leaves, origins[name])
    return MappingProxyType(merged)
