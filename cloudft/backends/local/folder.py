"""A local job's folder, as others than the trainer see it.

The names are the trainer's own (local_backend/job_dir.py); a test compares the two lists.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudft.artifacts import is_complete
from cloudft.errors import DamagedJob
from cloudft.files import is_locked
from cloudft.types import JobState, LogLine, Metric, Progress, StatusDetails

JOB = "job.json"
DATA = "data"
LOCK = "lock"
PIDS = "trainer.json"
LOG = "trainer.log"
STATE = "state.json"
METRICS = "metrics.jsonl"
STOP = "stop"
CHECKPOINTS = "checkpoints"
ARTIFACTS = "artifacts"
ENDED = "ended.json"
EARLIER = "earlier"
RESERVE = ".reserve"
LOG_LINES_TOLD = 5
FULL_BYTES = 64 * 1024
"""With less room on the disk a trainer can't write how it ended."""


def snake(name: str) -> str:
    """`secondsLeft` -> `seconds_left`."""
    return re.sub(r"[A-Z]", lambda match: "_" + match[0].lower(), name)


@dataclass(frozen=True)
class JobFolder:
    """One job's folder. Every method reads what is there now."""

    path: Path

    def was_started(self) -> bool:
        """True once a trainer came up here, whatever became of it. An empty log proves nothing."""
        log = self.path / LOG
        return (self.path / PIDS).exists() or (log.exists() and log.stat().st_size > 0)

    def state(self, job_id: str) -> JobState:
        """One look. The ending is read after the lock was seen free, so none is overlooked."""
        alive = is_locked(self.path / LOCK)
        ending = self._json(ENDED)
        if ending is not None:
            return self._ended(job_id, ending)
        state = self._json(STATE) or {}
        progress = state.get("progress")
        common: dict[str, Any] = {
            "id": job_id,
            "created_at": self._created_at(),
            "progress": Progress(**{snake(k): v for k, v in progress.items()})
            if progress
            else None,
            "summary": state.get("summary", {}),
        }
        details = _details(state)
        if alive:
            status = "Stopping" if (self.path / STOP).exists() else "InProgress"
            return JobState(status=status, status_details=details, **common)  # type: ignore[arg-type]
        return JobState(
            status="Failed",
            status_details=_broken_off(details, "Failed"),
            failure_message=self._what_happened(),
            ended_at=state.get("updatedAt"),
            **common,
        )

    def _ended(self, job_id: str, ending: dict[str, Any]) -> JobState:
        state = self._json(STATE) or {}
        status, message = ending["status"], ending.get("failureMessage")
        artifacts = self.path / ARTIFACTS
        if status == "Completed" and not is_complete(artifacts):
            status, message = "Failed", f"the job had completed, but {artifacts} is gone or damaged"
        progress = state.get("progress")
        return JobState(
            id=job_id,
            status=status,
            status_details=_broken_off(_details(state), status),
            created_at=self._created_at(),
            ended_at=ending.get("endedAt"),
            failure_message=message,
            artifacts=str(artifacts) if status == "Completed" else None,
            progress=Progress(**{snake(k): v for k, v in progress.items()}) if progress else None,
            summary=state.get("summary", {}),
        )

    def _what_happened(self) -> str:
        if not self.was_started():
            return "the trainer was never started: submit was interrupted. Resume starts it."
        full = self._disk_is_full()
        if full:
            return full
        text = (
            "the trainer is gone and left no ending: it and its supervisor were killed together"
            " (SIGKILL, out of memory), or the machine went down. Resume goes on from the last"
            " checkpoint."
        )
        lines = [line.text for line in self.log_lines(None) if line.text.strip()][-LOG_LINES_TOLD:]
        return text + "\nLast log lines:\n" + "\n".join(lines) if lines else text

    def _disk_is_full(self) -> str | None:
        """In words; None where there is room."""
        found = os.statvfs(self.path)
        if found.f_bavail * found.f_frsize >= FULL_BYTES:
            return None
        return (
            f"the trainer is gone and could not write its ending: the disk of {self.path} is full."
            " Free some space there; then `cloudft resume` goes on from the last checkpoint."
        )

    def metrics(self) -> Iterator[Metric]:
        """The curve so far; a last line that is still being written is left for the next look."""
        try:
            content = (self.path / METRICS).read_bytes()
        except FileNotFoundError:
            return
        for line in content.splitlines(keepends=True):
            if line.endswith(b"\n"):
                yield Metric(**{snake(key): value for key, value in json.loads(line).items()})

    def log_lines(self, after: str | None) -> Iterator[LogLine]:
        """Whole lines of the log, from the byte offset `after`."""
        offset = int(after or 0)
        try:
            stream = (self.path / LOG).open("rb")
        except FileNotFoundError:
            return
        with stream:
            stream.seek(offset)
            for line in stream:
                offset += len(line)
                if line.endswith(b"\n"):
                    yield LogLine(str(offset), line.decode("utf-8", "replace").rstrip("\n"))

    def put_ending_aside(self) -> None:
        """Make room for another attempt: keep the ending, drop the stop mark. Raises OSError."""
        earlier = self.path / EARLIER
        earlier.mkdir(exist_ok=True)
        if (self.path / ENDED).exists():
            number = len(list(earlier.iterdir())) + 1
            os.rename(self.path / ENDED, earlier / f"{number:03d}-{ENDED}")
        (self.path / STOP).unlink(missing_ok=True)

    def _created_at(self) -> str:
        from cloudft.store import iso_time

        return iso_time((self.path / JOB).stat().st_mtime)

    def _json(self, name: str) -> dict[str, Any] | None:
        path = self.path / name
        try:
            value: dict[str, Any] = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise DamagedJob(
                f"job {self.path.name} is damaged: {name} can't be read ({error})",
                file=str(path),
                fix=f"look at it, or remove the folder {self.path}.",
            ) from error
        return value


def _details(state: dict[str, Any]) -> StatusDetails:
    return StatusDetails(**{snake(k): v for k, v in state.get("statusDetails", {}).items()})


def _broken_off(details: StatusDetails, status: str) -> StatusDetails:
    """A phase that was at work when the job ended has ended as the job did."""
    if status == "Completed":
        return StatusDetails("Completed", "Completed", "Completed")
    ends: dict[str, Any] = {k: status if v == "InProgress" else v for k, v in vars(details).items()}
    return StatusDetails(**ends)
