"""Values that a job file leaves to something else, such as a stack, laid under those it gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from cloudft.errors import CheckFailed
from cloudft.spec.load import LoadedJob
from cloudft.spec.merge import Origin
from cloudft.types import Finding

SectionName = str
"""The key of a registered section (sections.py)."""


def is_unset(job: LoadedJob, section: SectionName, name: str) -> bool:
    """True when nothing was given for a field of that section, not even null."""
    return name not in getattr(job.spec, section).model_fields_set


def with_defaults(
    job: LoadedJob, section: SectionName, values: Mapping[str, Any], origins: Mapping[str, Origin]
) -> LoadedJob:
    """The job with `values` for those fields of a section that it leaves unsaid.

    `origins` has one for each value. Raises CheckFailed for a value that its field does not take.
    """
    new = {name: value for name, value in values.items() if is_unset(job, section, name)}
    there = getattr(job.spec, section)
    given = there.model_dump(exclude_unset=True)
    try:
        made = type(there).model_validate({**given, **new})
    except ValidationError as error:
        faults = error.errors(include_url=False)
        findings = [_refused(job, section, fault, origins) for fault in faults]
        raise CheckFailed(findings[0].message, findings) from error
    spec = job.spec.model_copy(update={section: made})
    return dataclasses.replace(job, spec=spec, origins=_origins(job, section, new, origins))


def _refused(job: LoadedJob, section: str, fault: Any, origins: Mapping[str, Origin]) -> Finding:
    name = str(fault["loc"][0])
    field, where = f"{section}.{name}", origins[name].where
    message = f"{field}: {fault['msg']} (from the {where})"
    fix = f"set {field} in the job file, or mend the {where}."
    file = str(job.path) if job.path else None
    return Finding("error", "BadValue", message, fix, file, job.line_of(field), field)


def _origins(
    job: LoadedJob, section: str, new: Mapping[str, Any], origins: Mapping[str, Origin]
) -> Mapping[str, Origin]:
    """The origins of every leaf: a section stands for what is in it."""
    found = dict(job.origins)
    for name, value in new.items():
        field = f"{section}.{name}"
        found.pop(field, None)
        leaves = [f"{field}.{leaf}" for leaf in value] if isinstance(value, Mapping) else [field]
        found |= dict.fromkeys(leaves, origins[name])
    return MappingProxyType(found)
