"""Paths inside a job's folder, and the one ending of a job.

    job.json            the request; written before the trainer starts, never changed
    data/               the staged files that job.json names
    teacher/            answers of a teacher, and the data with them
    grader.py           the code that gives rewards, for reinforcement
    start/              models of the jobs that this one starts from, by job
    lock                held (flock) by the trainer's processes as long as one of them lives
    trainer.json        pids of the trainer and of its supervisor, for people
    trainer.log         everything the trainer prints
    state.json          the latest progress; replaced at every step
    metrics.jsonl       one line for each point of the loss curves; appended
    meeting             where several processes of one job find each other
    stop                its presence requests a stop
    tokens.json         keys of the kept tokens that the job uses, by role (data/token_cache.py)
    kernels.json        digest of the compiled kernels that the job began with; empty without
    checkpoints/        where `resume` continues
    artifacts/          what a completed job leaves, in Bedrock's layout; complete or absent
    model-removed       a mark: the artifacts were removed on purpose after the job had completed
    ended.json          how the job ended. The first ending written is the ending
    earlier/            endings of the attempts before a resume
    .reserve            disk space reserved for an ending, while a trainer runs

A pid does not prove that a trainer lives, because pids are reused. A lock that only living
processes can hold does.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TypedDict

from local_backend.atomic_folders import sync_folder

JOB = "job.json"
DATA = "data"
START = "start"
LOCK = "lock"
PIDS = "trainer.json"
LOG = "trainer.log"
STATE = "state.json"
METRICS = "metrics.jsonl"
STOP = "stop"
MEETING = "meeting"
CHECKPOINTS = "checkpoints"
REFERENCE = "reference"
TOKENS = "tokens.json"
KERNELS = "kernels.json"
ARTIFACTS = "artifacts"
ENDED = "ended.json"
EARLIER = "earlier"
RESERVE = ".reserve"
GRADER = "grader.py"
RELEASED = "model-removed"
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


class ModelRequest(TypedDict):
    """The model in job.json: its name, and where its weights may be, in order of preference."""

    name: str
    weights: list[WeightSource]


class WeightSource(TypedDict, total=False):
    """One place where a model's weights may be. `kind` selects which other keys are there."""

    kind: str
    """`package`, `folder`, `hub` or `job`."""
    distribution: str
    module: str
    file: str
    path: str
    """An absolute folder; of a job that another one starts from, relative to that one's folder."""
    hub_id: str
    job: str
    """Id of the job that left the model in `path`, with `method` and the folder's `sha256`."""
    method: str
    sha256: str
    name: str
    """Name of the model that this job started from, and where its weights may be."""
    base: list[WeightSource]


class LoraRequest(TypedDict):
    """The adapter settings in job.json."""

    r: int
    alpha: float
    dropout: float
    target_modules: str | list[str]


class StoppingRequest(TypedDict):
    """Early stopping in job.json."""

    patience: int
    threshold: float


class FileRequest(TypedDict):
    """A staged file in job.json. `path` is relative to the job's folder."""

    path: str
    sha256: str
    records: int


class DistillationRequest(TypedDict):
    """A teacher on this machine in job.json: its model, and how it answers."""

    teacher: ModelRequest
    maxResponseLength: int
    temperature: float


class PreferenceRequest(TypedDict):
    """`preference` of job.json, with TRL's names."""

    method: str
    beta: float
    label_smoothing: float
    simpo_gamma: float


class GraderRequest(TypedDict):
    """The grader in job.json. `path` is relative to the job's folder."""

    path: str
    sha256: str
    timeoutSeconds: int
    memoryMb: int


class ReinforcementRequest(TypedDict, total=False):
    """How a reinforcement job learns, in job.json; by TRL's names."""

    temperature: float
    beta: float
    epsilon: float
    num_iterations: int
    loss_type: str
    scale_rewards: str


class LaterKeys(TypedDict, total=False):
    """Keys of job.json that requests of earlier versions do not have."""

    processes: int | str
    fsdp: bool | str
    packed: bool | str
    distillation: DistillationRequest
    preference: PreferenceRequest
    grader: GraderRequest
    reinforcement: ReinforcementRequest


class JobRequest(LaterKeys):
    """What the trainer reads of job.json."""

    version: int
    customizationType: str
    format: str
    model: ModelRequest
    method: str
    lora: LoraRequest
    hyperParameters: dict[str, float]
    earlyStopping: StoppingRequest | None
    seed: int
    device: str
    dtype: str
    maxLength: int | None
    microBatchSize: int | None
    evalSteps: int | None
    maxTruncatedShare: float
    data: dict[str, FileRequest]


class Ending(TypedDict, total=False):
    """ended.json. `signal` is the one that killed the trainer."""

    status: str
    failureMessage: str | None
    endedAt: str
    signal: str | None


def utc_now() -> str:
    """Return the current time in UTC as ISO 8601, to the millisecond."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def write_json(path: Path, value: object, *, durable: bool = False) -> None:
    """Replace `path` with `value` atomically. With `durable`, it also survives a power cut."""
    write_bytes(path, json.dumps(value, indent=1).encode(), durable=durable)


def write_bytes(path: Path, raw: bytes, *, durable: bool = False) -> None:
    """Replace `path` with a file of these bytes, as `write_json` does."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(raw)
            file.flush()
            if durable:
                # Before the rename: otherwise a power cut could leave an empty file there.
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if durable:
        sync_folder(path.parent)


class JobDir:
    """One job's folder, as the trainer reads and writes it."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).resolve()

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def read_request(self) -> JobRequest:
        """Return the request from job.json."""
        value: JobRequest = json.loads((self / JOB).read_text(encoding="utf-8"))
        return value

    def is_stop_requested(self) -> bool:
        """Return True once a stop was requested."""
        return (self / STOP).exists()

    def write_state(self, state: Mapping[str, object]) -> None:
        """Replace the progress that other processes read."""
        write_json(self / STATE, {**state, "updatedAt": utc_now()})

    def read_ending(self) -> Ending | None:
        """Return the ending, or None while the job has none."""
        try:
            value: Ending = json.loads((self / ENDED).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return value

    def reserve_space(self) -> None:
        """Reserve disk space for an ending, so that a job can report that the disk became full.

        If there is no space for the reserve, the job has none either: its next write reports that.
        """
        try:
            # Random, because a file system that compresses would reserve nothing for zeros.
            (self / RESERVE).write_bytes(os.urandom(RESERVED_BYTES))
        except OSError:
            self.release_space()

    def release_space(self) -> None:
        """Free the reserved disk space."""
        (self / RESERVE).unlink(missing_ok=True)

    def write_ending(
        self, status: str, failure_message: str | None = None, **extra: str | None
    ) -> bool:
        """Write how the job ended, unless an ending exists. Return True if this one was written.

        Frees the reserved space if the first attempt fails. Raise OSError if it fails again.
        """
        try:
            return self._write_ending_once(status, failure_message, **extra)
        except OSError:
            if not (self / RESERVE).exists():
                raise
            self.release_space()
            return self._write_ending_once(status, failure_message, **extra)

    def _write_ending_once(
        self, status: str, failure_message: str | None, **extra: str | None
    ) -> bool:
        temporary = self / f".{ENDED}.{os.getpid()}"
        ending = {
            "status": status,
            "failureMessage": failure_message,
            "endedAt": utc_now(),
            **extra,
        }
        write_json(temporary, ending, durable=True)
        # link(2) fails if the name exists, in one step with creating it: the first ending written
        # is the ending, whichever process writes it.
        try:
            os.link(temporary, self / ENDED)
        except FileExistsError:
            return False
        finally:
            os.unlink(temporary)
        sync_folder(self.path)
        return True

    def remove_leftovers(self) -> None:
        """Remove the temporary files of a killed writer. Call this only while holding the lock."""
        for name in (PIDS, STATE, ENDED):
            for path in self.path.glob(f".{name}.*"):
                path.unlink(missing_ok=True)
        for pattern in (f".{ARTIFACTS}.*", f"{CHECKPOINTS}/.step-*", f"{CHECKPOINTS}/.best.*"):
            for folder in self.path.glob(pattern):
                shutil.rmtree(folder, ignore_errors=True)
        (self / MEETING).unlink(missing_ok=True)

    def last_log_lines(self, count: int = 5) -> list[str]:
        """Return the last lines of the trainer's log, for a failure message."""
        try:
            with (self / LOG).open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 8192))
                text = file.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return []
        return [line for line in text.splitlines() if line.strip()][-count:]


def acquire_lock(path: Path) -> int | None:
    """Return an open descriptor that holds the job's lock, or None if a living process holds it.

    The lock belongs to this process and to those that inherit the descriptor.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
