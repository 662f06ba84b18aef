"""Report a run's progress to other processes: state.json, and the log on standard output."""

from __future__ import annotations

import contextlib
from typing import TypedDict

from local_backend.distributed.process_group import ProcessGroup
from local_backend.errors import StopRequested
from local_backend.job_dir import IN_PROGRESS, PHASES, JobDir

Summary = dict[str, object]
"""What the run has chosen and found, by name; JSON-compatible."""


class _Progress(TypedDict):
    step: int
    totalSteps: int
    epoch: int
    loss: float | None
    tokensPerSecond: float | None
    secondsLeft: float | None
    activity: str


class Progress(_Progress, total=False):
    """Where the run is, for `cloudft watch`. Times are in seconds.

    `reward` is the last step's mean, of a run that learns from rewards.
    """

    reward: float


class ProgressReporter:
    """Writes the run's state and log. Only rank 0 writes."""

    def __init__(self, job_dir: JobDir, group: ProcessGroup | None = None) -> None:
        self.job_dir = job_dir
        self.process_group = group or ProcessGroup()
        self.status_details = dict.fromkeys(PHASES, "NotStarted")
        self.summary: Summary = {}
        self.progress: Progress | None = None
        self.is_stop_signaled = False

    def set_phase(self, name: str, status: str) -> None:
        """Set the status of one of the three phases and write the state."""
        self.status_details[name] = status
        self.write_state()

    def write_state(self) -> None:
        """Write the current state to state.json."""
        if not self.process_group.is_rank_zero:
            return
        self.job_dir.write_state(
            {
                "status": IN_PROGRESS,
                "statusDetails": self.status_details,
                "progress": self.progress,
                "summary": self.summary,
            }
        )

    def close_phase(self, status: str) -> None:
        """Give the phase in progress the job's final status. Never raise on a full disk."""
        for name, phase in self.status_details.items():
            if phase == IN_PROGRESS:
                self.status_details[name] = status
        with contextlib.suppress(OSError):
            self.write_state()

    def log(self, text: str) -> None:
        """Print one line to the log."""
        if self.process_group.is_rank_zero:
            print(text, flush=True)

    def raise_if_stopped(self) -> None:
        """Raise StopRequested once a stop was requested, in all ranks at the same point."""
        # A stop that only some ranks saw would leave the others waiting in a collective.
        if self.process_group.any_rank(self.is_stop_signaled or self.job_dir.is_stop_requested()):
            raise StopRequested
