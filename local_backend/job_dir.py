"""Every path in a job's folder, and the one ending of a job.

    job.json            what to do; written before the trainer starts, never changed
    data/               the staged files that job.json names
    lock                held (flock) by the trainer's processes as long as one of them lives
    trainer.json        pid of the trainer and of its supervisor, for people
    trainer.log         everything the trainer prints
    state.json          the latest progress; replaced at every step
    metrics.jsonl       one line a point of the loss curves; appended
    meeting             where several processes of one job find each other
    stop                its presence asks the trainer to stop
    checkpoints/        where `resume` goes on
    artifacts/          what a completed job leaves, in Bedrock's layout; there whole or not at all
    ended.json          how it ended. The first ending written is the ending
    earlier/            endings of the attempts before a resume
    .reserve            room on the disk for an ending; there while a trainer runs

A pid does not prove that a trainer lives (pids come round again); a lock that only living processes
can hold does.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from local_backend.atomic_folders import sync_folder

JOB = "job.json"
DATA = "data"
LOCK = "lock"
PIDS = "trainer.json"
LOG = "trainer.log"
STATE = "state.json"
METRICS = "metrics.jsonl"
STOP = "stop"
MEETING = "meeting"
CHECKPOINTS = "checkpoints"
ARTIFACTS = "artifacts"
ENDED = "ended.json"
EARLIER = "earlier"
RESERVE = ".reserve"
RESERVED_BYTES = 32 * 1024
"""An ending takes one or two blocks of the disk, and its temporary file as many."""

MODEL = "model"
RESULT = "result.json"
MANIFEST = "manifest.json"
TRAINING_CSV = "training_artifacts/step_wise_training_metrics.csv"
VALIDATION_CSV = "validation_artifacts/post_fine_tuning_validation/validation_metrics.csv"
TRAINING_COLUMNS = ("step_number", "epoch_number", "training_loss", "perplexity")
VALIDATION_COLUMNS = ("step_number", "epoch_number", "validation_loss", "perplexity")

COMPLETED, FAILED, STOPPED, IN_PROGRESS = "Completed", "Failed", "Stopped", "InProgress"
PHASES = ("validationDetails", "dataProcessingDetails", "trainingDetails")


def utc_now() -> str:
    """The time in UTC, ISO 8601, to the millisecond."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def write_json(path: Path, value: Any, *, durable: bool = False) -> None:
    """Replace `path` by `value` in one step; with `durable`, it survives a power cut too."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=1)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if durable:
        sync_folder(path.parent)


class JobDir:
    """One job's folder, as the trainer sees it."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).resolve()

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def read_request(self) -> dict[str, Any]:
        """The request, from job.json."""
        value: dict[str, Any] = json.loads((self / JOB).read_text(encoding="utf-8"))
        return value

    def is_stop_requested(self) -> bool:
        """True once someone asked this job to stop."""
        return (self / STOP).exists()

    def write_state(self, state: dict[str, Any]) -> None:
        """Replace the progress that others see."""
        write_json(self / STATE, {**state, "updatedAt": utc_now()})

    def read_ending(self) -> dict[str, Any] | None:
        """The ending, or None while there is none."""
        try:
            value: dict[str, Any] = json.loads((self / ENDED).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return value

    def reserve_space(self) -> None:
        """Take room for an ending, so that a job can say that the disk became full.

        Without room for it there is none for the job: what writes next says so.
        """
        try:
            (self / RESERVE).write_bytes(os.urandom(RESERVED_BYTES))
        except OSError:
            self.release_space()

    def release_space(self) -> None:
        """Give the room back."""
        (self / RESERVE).unlink(missing_ok=True)

    def write_ending(self, status: str, failure_message: str | None = None, **more: Any) -> bool:
        """Write how the job ended, unless an ending is there already. True if this one is it."""
        try:
            return self._write_ending_once(status, failure_message, **more)
        except OSError:
            if not (self / RESERVE).exists():
                raise
            self.release_space()
            return self._write_ending_once(status, failure_message, **more)

    def _write_ending_once(self, status: str, failure_message: str | None, **more: Any) -> bool:
        temporary = self / f".{ENDED}.{os.getpid()}"
        ending = {"status": status, "failureMessage": failure_message, "endedAt": utc_now(), **more}
        write_json(temporary, ending, durable=True)
        try:
            os.link(temporary, self / ENDED)
        except FileExistsError:
            return False
        finally:
            os.unlink(temporary)
        sync_folder(self.path)
        return True

    def remove_leftovers(self) -> None:
        """Remove what a writer left that was killed in the act. For the holder of the lock."""
        for name in (PIDS, STATE, ENDED):
            for path in self.path.glob(f".{name}.*"):
                path.unlink(missing_ok=True)
        for pattern in (f".{ARTIFACTS}.*", f"{CHECKPOINTS}/.step-*", f"{CHECKPOINTS}/.best.*"):
            for folder in self.path.glob(pattern):
                shutil.rmtree(folder, ignore_errors=True)
        (self / MEETING).unlink(missing_ok=True)

    def last_log_lines(self, count: int = 5) -> list[str]:
        """The last lines of the trainer's log, for a failure message."""
        try:
            with (self / LOG).open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 8192))
                text = file.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return []
        return [line for line in text.splitlines() if line.strip()][-count:]


def acquire_lock(path: Path) -> int | None:
    """An open descriptor that holds the job's lock for this process and those that inherit it.

    None when a living process holds it already.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
