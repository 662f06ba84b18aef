"""The folder of a local job, as every process but the trainer sees it.

The file names are the trainer's own (local_backend/job_dir.py); a test compares the two lists.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudft import types
from cloudft.backends import trainer_documents as documents
from cloudft.backends.trainer_documents import TrainerEnding, TrainerRequest, TrainerState
from cloudft.storage.artifacts import is_complete
from cloudft.storage.atomic_files import atomic_write, is_locked
from cloudft.storage.store import as_damaged_job, damaged_job, read_job_document, to_iso_time
from cloudft.types import JobState, LogLine, Metric, StatusDetails

JOB = "job.json"
DATA = "data"
START = "start"
LOCK = "lock"
PIDS = "trainer.json"
LOG = "trainer.log"
STATE = "state.json"
METRICS = "metrics.jsonl"
STOP = "stop"
TOKENS = "tokens.json"
CHECKPOINTS = "checkpoints"
ARTIFACTS = "artifacts"
ENDED = "ended.json"
EARLIER = "earlier"
RESERVE = ".reserve"
GRADER = "grader.py"
RELEASED = "model-removed"
"""A mark: the model was removed on purpose; curves, log and ending of the job are still here."""
LOG_LINES_SHOWN = 5
DISK_FULL_BYTES = 64 * 1024
"""With less room on the disk a trainer can't write how it ended."""


@dataclass(frozen=True)
class JobFolder:
    """One job's folder. Every method reads what is on disk now."""

    path: Path

    def was_started(self) -> bool:
        """Return whether a trainer ever started here. An empty log proves nothing."""
        log = self.path / LOG
        return (self.path / PIDS).exists() or (log.exists() and log.stat().st_size > 0)

    def read_state(self, job_id: str) -> JobState:
        """Return the job's state. Raise DamagedJob, which names the file that can't be read.

        The ending is read after the lock was seen free, so that none is missed.
        """
        with as_damaged_job(self.path / LOCK):
            alive = is_locked(self.path / LOCK)
        self.read_request()
        # Order matters: a trainer writes its ending before it releases the lock.
        ending = read_job_document(self.path / ENDED, TrainerEnding)
        state = self._state()
        common: dict[str, Any] = {
            "id": job_id,
            "created_at": self._created_at(),
            "progress": state.progress.to_training_progress() if state.progress else None,
            "summary": state.summary,
        }
        if ending is not None:
            return self._ended(ending, state, common)
        details = state.status_details.to_status_details()
        if alive:
            status = "Stopping" if (self.path / STOP).exists() else "InProgress"
            return JobState(status=status, status_details=details, **common)  # type: ignore[arg-type]
        return JobState(
            status="Failed",
            status_details=_ended_details(details, "Failed"),
            failure_message=self._failure_message(),
            ended_at=state.updated_at,
            **common,
        )

    def fingerprint(self) -> tuple[object, ...]:
        """Return a value that changes whenever `read_state` may return another state.

        It costs no read of a file: many jobs are watched by it. Raise OSError.
        """
        return (
            is_locked(self.path / LOCK),
            *(_identity(self.path / name) for name in (JOB, STATE, ENDED, STOP, ARTIFACTS)),
        )

    def read_request(self) -> TrainerRequest:
        """Return the trainer's request. Raise DamagedJob."""
        path = self.path / JOB
        found = read_job_document(path, TrainerRequest)
        if found is None:
            raise damaged_job(path, "there is none")
        if found.id != self.path.name:
            raise damaged_job(path, f"it is the request of the job {found.id}", "id")
        return found

    def _state(self) -> TrainerState:
        path = self.path / STATE
        with as_damaged_job(path):
            try:
                return documents.parse_state(path.read_bytes(), path)
            except FileNotFoundError:
                return TrainerState()

    def _ended(
        self, ending: TrainerEnding, state: TrainerState, common: dict[str, Any]
    ) -> JobState:
        status, message = ending.status, ending.failure_message
        artifacts = self.path / ARTIFACTS
        is_released = status == "Completed" and (self.path / RELEASED).exists()
        if is_released:
            common["summary"] = {**common["summary"], types.MODEL_REMOVED: True}
        elif status == "Completed" and not is_complete(artifacts):
            status, message = "Failed", f"the job had completed, but {artifacts} is gone or damaged"
        return JobState(
            status=status,
            status_details=_ended_details(state.status_details.to_status_details(), status),
            ended_at=ending.ended_at,
            failure_message=message,
            artifacts=str(artifacts) if status == "Completed" and not is_released else None,
            **common,
        )

    def _failure_message(self) -> str:
        if not self.was_started():
            return "the trainer was never started: submit was interrupted. Resume starts it."
        full = self._disk_full_message()
        if full:
            return full
        text = (
            "the trainer is gone and left no ending: it and its supervisor were killed together"
            " (SIGKILL, out of memory), or the machine went down. Resume goes on from the last"
            " checkpoint."
        )
        lines = [line.text for line in self.read_log_lines(None) if line.text.strip()][
            -LOG_LINES_SHOWN:
        ]
        return text + "\nLast log lines:\n" + "\n".join(lines) if lines else text

    def _disk_full_message(self) -> str | None:
        """Return a failure message where the disk is full, else None."""
        found = os.statvfs(self.path)
        if found.f_bavail * found.f_frsize >= DISK_FULL_BYTES:
            return None
        return (
            f"the trainer is gone and could not write its ending: the disk of {self.path} is full."
            " Free some space there; then `cloudft resume` goes on from the last checkpoint."
        )

    def read_metrics(self) -> Iterator[Metric]:
        """Yield the curve so far. A last line that is still being written is skipped."""
        path = self.path / METRICS
        with as_damaged_job(path):
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                return
        for number, line in enumerate(content.splitlines(keepends=True), 1):
            if line.endswith(b"\n"):
                with as_damaged_job(path):
                    point = documents.parse_metric(line, path, number)
                yield point

    def read_log_lines(self, after: str | None) -> Iterator[LogLine]:
        """Yield whole lines of the log, from the byte offset `after`."""
        offset = int(after or 0)
        path = self.path / LOG
        with as_damaged_job(path):
            try:
                stream = path.open("rb")
            except FileNotFoundError:
                return
        with stream:
            stream.seek(offset)
            for line in stream:
                offset += len(line)
                if line.endswith(b"\n"):
                    yield LogLine(str(offset), line.decode("utf-8", "replace").rstrip("\n"))

    def release_model(self) -> None:
        """Remove the model and the checkpoints of an ended job, and keep the rest. Raise OSError.

        The mark comes first: a job whose removal is interrupted has no half model.
        """
        atomic_write(self.path / RELEASED, b"")
        for name in (ARTIFACTS, CHECKPOINTS):
            shutil.rmtree(self.path / name, ignore_errors=True)

    def was_killed(self) -> bool:
        """Return whether a signal ended the last run, or its processes are gone without an ending.

        Raise DamagedJob.
        """
        ending = read_job_document(self.path / ENDED, TrainerEnding)
        if ending is None:
            return self.was_started() and not is_locked(self.path / LOCK)
        return ending.signal is not None

    def archive_previous_ending(self) -> None:
        """Move the ending to `earlier/` and remove the stop mark. Raise OSError."""
        earlier = self.path / EARLIER
        earlier.mkdir(exist_ok=True)
        if (self.path / ENDED).exists():
            number = len(list(earlier.iterdir())) + 1
            os.rename(self.path / ENDED, earlier / f"{number:03d}-{ENDED}")
        (self.path / STOP).unlink(missing_ok=True)

    def _created_at(self) -> str:
        return to_iso_time((self.path / JOB).stat().st_mtime)


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Return what changes when a file is replaced; None for a missing one. Raise OSError."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _ended_details(details: StatusDetails, status: str) -> StatusDetails:
    """Return the phases of an ended job: a phase that was running has ended as the job did."""
    if status == "Completed":
        return StatusDetails("Completed", "Completed", "Completed")
    ends: dict[str, Any] = {k: status if v == "InProgress" else v for k, v in vars(details).items()}
    return StatusDetails(**ends)
