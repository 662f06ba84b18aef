"""The seam between a job and what runs it: narrow here, comfort above it (jobs.py).

A backend is one folder with the same file names as its neighbours: `backend.py`, `request.py`
(pure), `preflight.py`, `serve.py`. What not every backend can do is a type of its own.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudft.errors import DamagedJob, JobNotFound
from cloudft.spec.load import LoadedJob
from cloudft.types import (
    DataVolume,
    Estimate,
    Finding,
    JobState,
    LogLine,
    Manifest,
    Metric,
    Plan,
    StagedFile,
)


@dataclass(frozen=True)
class StagedJob:
    """A job whose data is staged in `folder`. A later `attempt` is another job of the same text."""

    job: LoadedJob
    manifest: Manifest
    folder: Path
    attempt: int = 0


def with_placeholder_data(job: LoadedJob) -> StagedJob:
    """The job with a stand-in for its staged data: what its request looks like."""
    roles = ("train", "validation") if job.spec.data.validation is not None else ("train",)
    files = {
        role: StagedFile(0, 0, 0, name=f"{role}.jsonl", sha256="0" * 64, bytes=0) for role in roles
    }
    kind = job.spec.customization_type
    empty = Manifest("0" * 64, kind, job.model.formats.get(kind, ""), job.spec.seed, files, (), "")
    return StagedJob(job, empty, Path())


class Backend(ABC):
    """Runs jobs. Every method may be called from any process, at any time."""

    name: str
    poll_seconds: float = 30.0
    """How often it makes sense to look at a job."""
    longest_poll_seconds: float | None = None
    """How rarely, when nothing has changed for long."""
    inference_is_billed: bool = False
    """True where a job's models are asked elsewhere, for money."""

    def with_stack_defaults(self, job: LoadedJob) -> LoadedJob:
        """The job with what it leaves to the backend's account to say. Reads only.

        Raises CheckFailed where the account says nothing of use, AwsRefused and AwsUnreachable.
        """
        return job

    @abstractmethod
    def check(self, job: LoadedJob) -> list[Finding]:
        """What this backend adds to the checks of spec and data. Reads only."""

    @abstractmethod
    def estimate(self, job: LoadedJob, volumes: Mapping[str, DataVolume]) -> Estimate:
        """Tokens, time and cost of a job with so much data by role, before anything runs."""

    @abstractmethod
    def plan(self, staged: StagedJob) -> Plan:
        """The exact request as a value. Touches nothing; the same input gives the same plan."""

    @abstractmethod
    def submit(self, plan: Plan, progress: Callable[[int], None] | None = None) -> str:
        """Start the job; returns the backend's id. Twice with one plan is one job.

        `progress` is told the bytes that have gone to where the job runs.
        """

    @abstractmethod
    def describe(self, job_id: str) -> JobState:
        """One look at the job. Raises JobNotFound for an id that this backend does not have."""

    def describe_many(self, job_ids: Sequence[str]) -> Mapping[str, JobState]:
        """One look at each of these jobs, by id; those that this backend lacks are left out.

        A backend that can ask for many at once does; what takes a call for each job, such as
        bringing artifacts home, is left out then.
        """
        found = {}
        for job_id in job_ids:
            with contextlib.suppress(JobNotFound, DamagedJob):
                found[job_id] = self.describe(job_id)
        return found

    def location_of(self, job: LoadedJob) -> Mapping[str, Any]:
        """Where the job file wants the job to run: what `at` takes. Plain data."""
        return {}

    def bind(self, place: Mapping[str, Any]) -> Backend:
        """The same backend at that place: its account, its Region, its endpoint."""
        return self

    @abstractmethod
    def metrics(self, job_id: str) -> Iterator[Metric]:
        """The points of the loss curves known so far, by step."""

    @abstractmethod
    def logs(self, job_id: str, after: str | None = None) -> Iterator[LogLine]:
        """The log lines known so far, those behind the cursor `after` alone when it is given."""

    @abstractmethod
    def stop(self, job_id: str) -> None:
        """Ask the job to stop. A second call does nothing; one on an ended job neither."""

    @abstractmethod
    def download_artifacts(
        self, job_id: str, to: Path, on_copied: Callable[[int], None] | None = None
    ) -> Path:
        """Copy what the job left to the new folder `to`, in the layout of storage/artifacts.py.

        `on_copied` gets the size of each file that was copied, in bytes. Raise JobStateConflict for
        a job that has no artifacts, or a folder that exists.
        """
