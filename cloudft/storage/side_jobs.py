"""Recognize side jobs: trials of a sweep, and jobs on parts of another job's data.

Lists leave them out, and `-` never names one: they are found through what they belong to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cloudft.storage.home import Home

if TYPE_CHECKING:
    from cloudft.storage.store import JobRecord

SWEEP_TAG, TRIAL_TAG = "sweep", "trial"
"""Tags of a trial's job: the sweep, and the trial's number."""
PARTS_FOLDER = "parts"
"""Folder in a job's folder: one folder for each part of its data, with a job file."""


def sweep_of(tags: Mapping[str, str], home: Home) -> str | None:
    """Return the sweep that a job with these tags is a trial of, if that is still there."""
    name = tags.get(SWEEP_TAG, "")
    is_name = bool(name) and "/" not in name and name not in (".", "..")
    is_sweep = is_name and TRIAL_TAG in tags and (home.sweeps / name).is_dir()
    return name if is_sweep else None


def is_trial(tags: Mapping[str, str], home: Home) -> bool:
    """Return whether a job with these tags is a trial of a sweep that is still there."""
    return sweep_of(tags, home) is not None


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
        if (record.folder / PARTS_FOLDER).is_dir()  # quicker than a glob that finds nothing
        for folder in (record.folder / PARTS_FOLDER).glob("1of*")
    }


def without_side_jobs(records: Sequence[JobRecord]) -> list[JobRecord]:
    """Return the jobs that people have submitted for their own sake, in the same order."""
    parts = part_job_names(records)
    return [
        record
        for record in records
        if record.name not in parts and not is_trial(record.tags, Home(record.folder.parents[1]))
    ]
