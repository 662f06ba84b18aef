"""Write the job file with the best values: the user's own text, with nothing else changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cloudft.errors import UsageError
from cloudft.spec.load import LoadedJob, load_job
from cloudft.spec.serialize import to_portable_values
from cloudft.spec.yaml_edit import edit_yaml
from cloudft.spec.yaml_source import FieldPath, flatten
from cloudft.storage.atomic_files import as_store_error, atomic_write
from cloudft.sweep.records import Value


def write_best_job(job: LoadedJob, changes: Mapping[str, Value], to: Path) -> Path:
    """Write a copy of the job's file with other values of dotted fields, and return its path.

    In another folder than the file's, relative paths become absolute. Raise UsageError for a job
    without a file, where `to` is that file, and where the result would be another job.
    """
    if job.path is None:
        raise UsageError("the job has no file to change", fix="write its flags into a job file.")
    if to.exists() and to.samefile(job.path):
        raise UsageError(
            f"{to} is the job file itself, which the sweep continues with",
            fix="name another file: --write best.yaml",
        )
    edits: dict[FieldPath, object] = {}
    if to.absolute().parent.resolve() != job.base_dir:
        edits |= _absolute_paths(job)
    edits |= {tuple(name.split(".")): value for name, value in changes.items()}
    text = edit_yaml(job.path.read_text(encoding="utf-8-sig"), edits)
    with as_store_error("the job file can't be written", to):
        atomic_write(to, text.encode())
    _require_same_job(job, load_job(to), changes)
    return to


def _absolute_paths(job: LoadedJob) -> dict[FieldPath, object]:
    """Return the values that mean something else in another folder."""
    written = dict(flatten(load_job(job.path).spec.model_dump(exclude_unset=True)))
    portable = dict(flatten(to_portable_values(load_job(job.path))))
    return {
        path: list(value) if isinstance(value, tuple) else value
        for path, value in portable.items()
        if path in written and _plain(value) != _plain(written[path])
    }


def _plain(value: object) -> object:
    """Return a list of one as that one."""
    if isinstance(value, (list, tuple)):
        return value[0] if len(value) == 1 else list(value)
    return value


def _require_same_job(job: LoadedJob, written: LoadedJob, changes: Mapping[str, Value]) -> None:
    """Raise UsageError unless the file that was written has the job with just these changes."""
    assert job.path is not None
    expected: dict[str, Any] = {
        ".".join(path): _plain(value)
        for path, value in flatten(to_portable_values(load_job(job.path)))
    }
    expected |= changes
    found = {".".join(p): _plain(value) for p, value in flatten(to_portable_values(written))}
    if found != expected:
        differing = sorted(
            name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)
        )
        raise UsageError(
            f"the job file can't be changed automatically: {', '.join(differing)} would differ",
            fix="set the values by hand; they are listed above.",
        )
