"""The jobs that were submitted from this home: `CLOUDFT_HOME/submitted/JOB`, an empty file each.

A home also has records of other machines' jobs, once it has listed them, and loses its own when
they are deleted. What `gc` may remove from an account without being named rests on this list: the
file is written before the backend is called and outlives the job's folder.
"""

from __future__ import annotations

import os
from pathlib import Path

from cloudft.storage.atomic_files import as_store_error, fsync_folder, make_private_folder

FOLDER = "submitted"


class SubmittedJobs:
    """The ids of the jobs that were submitted from one home, beside its folder `jobs`."""

    def __init__(self, jobs: Path) -> None:
        self.folder = jobs.with_name(FOLDER)

    def add(self, job_id: str) -> None:
        """Record, durably, that a job is submitted from here. Raise StoreError."""
        with as_store_error(f"job {job_id} can't be saved", self.folder):
            make_private_folder(self.folder)
            (self.folder / job_id).touch()
            fsync_folder(self.folder)

    def job_ids(self) -> frozenset[str]:
        """Return every job that was ever submitted from here. Raise StoreError."""
        with as_store_error("the submitted jobs can't be listed", self.folder):
            try:
                return frozenset(os.listdir(self.folder))
            except FileNotFoundError:
                return frozenset()
