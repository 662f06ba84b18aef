"""Serialize a loaded job as plain values that mean the same from any folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cloudft.spec.load import LoadedJob
from cloudft.spec.model import parse_spec
from cloudft.spec.sections import job_sections
from cloudft.spec.yaml_source import JobTree


def to_portable_values(job: LoadedJob) -> dict[str, Any]:
    """Return what was given (file, flags, environment), with every path absolute; no defaults.

    Sections that are no part of the job itself are left out.
    """
    apart = {name for name, section in job_sections().items() if not section.is_part_of_job}
    apart.add("tracking")  # jobs/trackers.py keeps it beside the job
    values: dict[str, Any] = job.spec.model_dump(exclude_unset=True, exclude=apart)
    data = values["data"]
    for name in ("train", "validation", "test"):
        if name in data:
            data[name] = _make_absolute(data[name], job.base_dir)
    for part in data.get("mix", ()):
        part["path"] = _make_absolute(part["path"], job.base_dir)
    evaluate = values.get("evaluate", {})
    for name in ("general", "documents"):
        if evaluate.get(name):
            evaluate[name] = _make_absolute(evaluate[name], job.base_dir)
    values["base_model"] = _make_model_absolute(values["base_model"], job.base_dir)
    for section in job_sections().values():
        given = values.get(section.name) or {}
        for name in (name for name in section.model_fields if given.get(name)):
            given[name] = _make_model_absolute(given[name], job.base_dir)
        for name in (name for name in section.path_fields if given.get(name)):
            given[name] = _make_absolute(given[name], job.base_dir)
    return values


def find_first_fault(spec: JobTree) -> tuple[str, str] | None:
    """Return the first field of plain values that no job file may have so, and why; else None."""
    try:
        parse_spec(spec)
    except ValidationError as error:
        first = error.errors()[0]
        return ".".join(map(str, first["loc"])), first["msg"]
    return None


def _make_absolute(value: object, base_dir: Path) -> object:
    """Return a path or a list of them as absolute; a share and an S3 URI stay as they are.

    Of named sets, each has its paths so.
    """
    if isinstance(value, dict):
        return {name: _make_absolute(item, base_dir) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_make_absolute(item, base_dir) for item in value]
        return items[0] if len(items) == 1 else items
    if not isinstance(value, str) or value.startswith("s3://"):
        return value
    return str(base_dir / Path(value).expanduser())


def _make_model_absolute(name: str, base_dir: Path) -> str:
    """Return a model that is a folder as its absolute path; an alias or a hub id as it is."""
    try:
        folder = base_dir / Path(name).expanduser()
        return str(folder) if folder.is_dir() else name
    except (OSError, RuntimeError):  # longer than any file name, or ~ of an unknown user
        return name
