"""What others see of a run while it goes on: state.json, and the log on standard output."""

from __future__ import annotations

import contextlib
from typing import Any

from local_backend.distributed.process_group import ProcessGroup
from local_backend.errors import StopRequested
from local_backend.job_dir import IN_PROGRESS, PHASES, JobDir


class ProgressReporter:
    """What others see of the run: state.json, and the log on standard output."""

    def __init__(self, job_dir: JobDir, team: ProcessGroup | None = None) -> None:
        self.job_dir = job_dir
        self.process_group = team or ProcessGroup()
        self.status_details = dict.fromkeys(PHASES, "NotStarted")
        self.summary: dict[str, Any] = {}
        self.progress: dict[str, Any] | None = None
        self.is_stop_signaled = False

    def set_phase(self, name: str, status: str) -> None:
        """Move one of the three phases on."""
        self.status_details[name] = status
        self.write_state()

    def write_state(self) -> None:
        """Publish the state as it is."""
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
        """The phase that was at work ends with the job. Does not fail on a full disk."""
        for name, phase in self.status_details.items():
            if phase == IN_PROGRESS:
                self.status_details[name] = status
        with contextlib.suppress(OSError):
            self.write_state()

    def log(self, text: str) -> None:
        """One line for people."""
        if self.process_group.is_rank_zero:
            print(text, flush=True)

    def raise_if_stopped(self) -> None:
        """Raise StopRequested once someone asked for it; in all processes at the same point."""
        if self.process_group.any_rank(self.is_stop_signaled or self.job_dir.is_stop_requested()):
            raise StopRequested


def silence_libraries() -> None:
    """No progress bars of others in our log."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
