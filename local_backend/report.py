"""What others see of a run while it goes on: state.json, and the log on standard output."""

from __future__ import annotations

import contextlib
from typing import Any

from local_backend.errors import StopRequested
from local_backend.job_dir import IN_PROGRESS, PHASES, JobDir
from local_backend.parallel import Team


class Report:
    """What others see of the run: state.json, and the log on standard output."""

    def __init__(self, job_dir: JobDir, team: Team | None = None) -> None:
        self.job_dir = job_dir
        self.team = team or Team()
        self.details = dict.fromkeys(PHASES, "NotStarted")
        self.summary: dict[str, Any] = {}
        self.progress: dict[str, Any] | None = None
        self.asked_to_stop = False

    def phase(self, name: str, status: str) -> None:
        """Move one of the three phases on."""
        self.details[name] = status
        self.write()

    def write(self) -> None:
        """Publish the state as it is."""
        if not self.team.leads:
            return
        self.job_dir.write_state(
            {
                "status": IN_PROGRESS,
                "statusDetails": self.details,
                "progress": self.progress,
                "summary": self.summary,
            }
        )

    def close(self, status: str) -> None:
        """The phase that was at work ends with the job. Does not fail on a full disk."""
        for name, phase in self.details.items():
            if phase == IN_PROGRESS:
                self.details[name] = status
        with contextlib.suppress(OSError):
            self.write()

    def log(self, text: str) -> None:
        """One line for people."""
        if self.team.leads:
            print(text, flush=True)

    def raise_if_stopped(self) -> None:
        """Raise StopRequested once someone asked for it; in all processes at the same point."""
        if self.team.any(self.asked_to_stop or self.job_dir.stop_requested()):
            raise StopRequested


def quiet_libraries() -> None:
    """No progress bars of others in our log."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
