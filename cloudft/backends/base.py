"""Interface that every backend implements. Convenience built on it lives in jobs/.

A backend is one folder with the same file names as its neighbors: `backend.py`, `request.py`
(pure), `preflight.py`. What only some backends can do is a class of its own (capabilities.py).
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cloudft.backends.observer import SILENT, RunObserver
from cloudft.errors import DamagedJob, JobNotFound
from cloudft.spec.grader_file import GraderFile
from cloudft.spec.load import LoadedJob
from cloudft.types import (
    VALIDATION,
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

Location = Mapping[str, str | None]
"""Where a backend runs its jobs, as plain data: on AWS `region`, `profile` and `endpoint_url`."""
BackendT = TypeVar("BackendT", bound="Backend")


@dataclass(frozen=True)
class StagedJob:
    """A job whose data is staged in `folder`.

    Another `attempt` of the same job file is another job.
    """

    job: LoadedJob
    manifest: Manifest
    folder: Path
    attempt: int = 0
    logged: DataVolume | None = None
    """What the job trains on of invocation logs, where these are its training data."""
    grader: GraderFile | None = None
    """The grader's file, where the job file names one; a copy in `folder`."""

    @property
    def volumes(self) -> dict[str, DataVolume]:
        """Return how much data there is, by role."""
        volumes: dict[str, DataVolume] = dict(self.manifest.files)
        return volumes if self.logged is None else {"train": self.logged, **volumes}


def with_placeholder_data(job: LoadedJob) -> StagedJob:
    """Return the job with a placeholder for its staged data, to build its request for a check."""
    data = job.spec.data
    held_out = data.validation_files or ([VALIDATION] if data.validation is not None else [])
    roles = (*(["train"] if data.train else []), *held_out)
    files = {
        role: StagedFile(0, 0, 0, name=f"{role}.jsonl", sha256="0" * 64, bytes=0) for role in roles
    }
    kind = job.spec.customization_type
    empty = Manifest("0" * 64, kind, job.model.formats.get(kind, ""), job.spec.seed, files, (), "")
    logged = None if data.invocation_logs is None else DataVolume(0, 0, 0)
    return StagedJob(job, empty, Path(), logged=logged)


class Backend(ABC):
    """Runs jobs. Every method may be called from any process, at any time.

    A backend is bound to one location (an account and Region). Commands bind it once, by `bind` or
    `for_job`; no method binds again.
    """

    name: str
    poll_seconds: float = 30.0
    """Poll interval in seconds."""
    longest_poll_seconds: float | None = None
    """Longest poll interval in seconds, for a job that has not changed for long."""
    training_is_billed: bool = True
    """Whether training costs money."""
    inference_is_billed: bool = False
    """Whether prompting a job's models costs money."""
    calls_teacher: bool = False
    """Whether the service itself lets the teacher of a distillation answer."""
    keeps_job_id: bool = False
    """Whether the backend's own id of a job is cloudft's."""

    @staticmethod
    def is_running_in(folder: Path) -> bool | None:
        """Return whether the process of the job in that folder is alive on this machine.

        None for a folder that is not of such a job, as every folder of a cloud's job is.
        """
        return None

    def location_of(self, job: LoadedJob) -> Location:
        """Return the location that the job file names, as `bind` takes it."""
        return {}

    def bind(self: BackendT, location: Location) -> BackendT:
        """Return this backend bound to a location."""
        return self

    def for_job(self: BackendT, job: LoadedJob) -> BackendT:
        """Return this backend bound to the location that the job file names."""
        return self.bind(self.location_of(job))

    def with_stack_defaults(self, job: LoadedJob) -> LoadedJob:
        """Return the job with unset fields filled from its stack's outputs. Reads only.

        Raise CheckFailed where the stack can't fill them, CloudRefused and CloudUnreachable.
        """
        return job

    @abstractmethod
    def check(self, job: LoadedJob) -> list[Finding]:
        """Return what this backend adds to the checks of job file and data. Reads only."""

    @abstractmethod
    def estimate(self, job: LoadedJob, volumes: Mapping[str, DataVolume]) -> Estimate:
        """Estimate tokens, time and cost of a job whose data, by role, has these volumes."""

    @abstractmethod
    def plan(self, staged: StagedJob) -> Plan:
        """Return the exact request as a value. No side effects; deterministic."""

    @abstractmethod
    def submit(self, plan: Plan, observer: RunObserver = SILENT) -> str:
        """Start the job; return the backend's id. Submitting one plan twice starts one job.

        The observer receives the bytes that are uploaded.
        """

    @abstractmethod
    def describe(self, job_id: str) -> JobState:
        """Return the job's current state. Raise JobNotFound for an unknown id."""

    def describe_many(self, job_ids: Sequence[str]) -> Mapping[str, JobState]:
        """Return the current state of each of these jobs by id, without the unknown ones.

        A backend overrides this where one call can list many jobs. It then leaves out what takes
        a call for each job, such as downloading artifacts.
        """
        states = {}
        for job_id in job_ids:
            with contextlib.suppress(JobNotFound, DamagedJob):
                states[job_id] = self.describe(job_id)
        return states

    @abstractmethod
    def metrics(self, job_id: str) -> Iterator[Metric]:
        """Yield the points of the loss curves so far, by step."""

    @abstractmethod
    def logs(self, job_id: str, after: str | None = None) -> Iterator[LogLine]:
        """Yield the log lines so far; with `after`, only those behind that cursor."""

    @abstractmethod
    def stop(self, job_id: str) -> None:
        """Request that the job stop. Idempotent; does nothing for a job that has ended."""

    @abstractmethod
    def download_artifacts(
        self, job_id: str, to: Path, on_copied: Callable[[int], None] | None = None
    ) -> Path:
        """Copy the job's artifacts to the new folder `to`, in the layout of storage/artifacts.py.

        `on_copied` gets the size of each file that was copied, in bytes. Raise JobStateConflict for
        a job that has no artifacts, or a folder that exists.
        """
