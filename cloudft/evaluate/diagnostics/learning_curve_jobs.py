"""Name the jobs that train on parts of another job's data, for its learning curve."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cloudft.storage.store import JobRecord

PARTS_FOLDER = "parts"
"""Folder in a job's folder: one folder for each part of its data, with a job file."""


def part_folder(record: JobRecord, share: float) -> Path:
    """Return the folder of the job on `share` of the data: `1of8` for 0.125."""
    return record.folder / PARTS_FOLDER / f"1of{round(1 / share)}"


def part_job_name(record: JobRecord, folder: Path) -> str:
    """Return the name of the job whose file is in the part's `folder`."""
    return f"{record.name[:50]}-{folder.name}"


def part_job_names(records: Iterable[JobRecord]) -> set[str]:
    """Return the names of all jobs that belong to the learning curve of one of `records`."""
    return {
        part_job_name(record, folder)
        for record in records
        for folder in (record.folder / PARTS_FOLDER).glob("1of*")
    }
