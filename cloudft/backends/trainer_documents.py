"""The files that the trainer writes into a job's folder, as cloudft reads them.

The trainer writes them with Python's json, so a number may be NaN or Infinity. Keys that are not
named here belong to other versions and are ignored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from cloudft.errors import BadDocument
from cloudft.storage.documents import (
    Count,
    FileName,
    Sha256,
    check_iso_time,
    convert,
    parse_python_json,
)
from cloudft.types import DetailStatus, Metric, Split, StatusDetails, TrainingProgress


class TrainerStatusDetails(msgspec.Struct, rename="camel"):
    """`statusDetails` of state.json."""

    validation_details: DetailStatus = "NotStarted"
    data_processing_details: DetailStatus = "NotStarted"
    training_details: DetailStatus = "NotStarted"

    def to_status_details(self) -> StatusDetails:
        """Return the same as a value of types.py."""
        return StatusDetails(**msgspec.structs.asdict(self))


class ProgressDocument(msgspec.Struct, rename="camel"):
    """`progress` of state.json."""

    step: Count
    total_steps: Count
    epoch: Count
    loss: float | None
    tokens_per_second: float | None
    seconds_left: float | None
    activity: str
    reward: float | None = None

    def to_training_progress(self) -> TrainingProgress:
        """Return the same as a value of types.py."""
        return TrainingProgress(**msgspec.structs.asdict(self))


class ValidationResult(msgspec.Struct, rename="camel"):
    """The validation of one model: its loss, or the reward of a job that learned from rewards."""

    validation_loss: float | None = None
    perplexity: float | None = None
    reward: float | None = None


class TrainerSummary(msgspec.Struct, rename="camel"):
    """The fields of `summary` that commands rely on. `summary` itself is kept whole."""

    base: ValidationResult | None = None
    tuned: ValidationResult | None = None
    model: str | None = None
    method: str | None = None
    device: str | None = None
    dtype: str | None = None


class TrainerWeightsLeftOut(msgspec.Struct):
    """Weights of one kind without an adapter."""

    name: str
    reason: str
    share: float


class TrainerAdapters(msgspec.Struct, rename="camel"):
    """The reply of `local_backend.models.target_modules`."""

    layers: int
    share: float
    text: str
    left_out: list[TrainerWeightsLeftOut] = []
    not_merged: list[str] = []


class TrainerState(msgspec.Struct, rename="camel"):
    """state.json."""

    status_details: TrainerStatusDetails = msgspec.field(default_factory=TrainerStatusDetails)
    progress: ProgressDocument | None = None
    summary: dict[str, Any] = {}
    updated_at: str | None = None


class TrainerEnding(msgspec.Struct, rename="camel"):
    """ended.json."""

    status: Literal["Completed", "Failed", "Stopped"]
    failure_message: str | None = None
    ended_at: str | None = None
    signal: str | None = None

    def __post_init__(self) -> None:
        """Reject an `endedAt` that is not a time."""
        check_iso_time(self.ended_at, "endedAt", file="ended.json")


class _Lora(msgspec.Struct):
    r: Annotated[int, msgspec.Meta(ge=1)]
    alpha: float
    dropout: float
    target_modules: str | list[str]


class _Stopping(msgspec.Struct):
    patience: Count
    threshold: float


class _Preference(msgspec.Struct):
    """The settings of PREFERENCE_OPTIMIZATION (local/job_section.py)."""

    method: Literal["dpo", "simpo", "orpo"]
    beta: float
    label_smoothing: float
    simpo_gamma: float


class _Reinforcement(msgspec.Struct):
    temperature: float = 1.0
    beta: float = 0.0
    epsilon: float = 0.2
    num_iterations: Annotated[int, msgspec.Meta(ge=1)] = 1
    loss_type: Literal["dapo", "bnpo", "grpo", "dr_grpo"] = "dapo"
    scale_rewards: Literal["group", "batch", "none"] = "group"


class _Grader(msgspec.Struct, rename="camel"):
    path: FileName
    sha256: Sha256
    timeout_seconds: Count
    memory_mb: Count


class TrainerSettings(msgspec.Struct, rename="camel"):
    """The part of job.json (local/request.py) that is the same on every machine."""

    version: Literal[1]
    name: str
    attempt: Count
    customization_type: str
    format: str
    method: Literal["lora", "qlora", "full"]
    lora: _Lora
    hyper_parameters: dict[str, int | float]
    seed: Count
    early_stopping: _Stopping | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    max_length: Count | None = None
    micro_batch_size: Count | None = None
    eval_steps: Count | None = None
    max_truncated_share: float = 0.05
    packed: bool | Literal["auto"] = "auto"
    preference: _Preference | None = None
    reinforcement: _Reinforcement | None = None
    grader: _Grader | None = None


class _Data(msgspec.Struct):
    path: str
    sha256: Sha256 | None = None
    records: Count = 0


class _Model(msgspec.Struct):
    name: str
    weights: list[dict[str, Any]] = []


class TrainerRequest(TrainerSettings, rename="camel", kw_only=True):
    """The whole job.json."""

    id: FileName
    base_model: str
    model: _Model
    data: dict[str, _Data]
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    processes: Count | Literal["auto"] = 1
    fsdp: bool | Literal["auto"] = "auto"


class _Point(msgspec.Struct, rename="camel"):
    step: Count
    epoch: Count
    split: Split
    loss: float
    perplexity: float
    learning_rate: float | None
    tokens_per_second: float | None
    timestamp: str
    validation_set: str | None = None
    chosen_reward: float | None = None
    rejected_reward: float | None = None
    reward_margin: float | None = None
    preference_accuracy: float | None = None
    reward: float | None = None
    kl: float | None = None
    response_length: float | None = None
    entropy: float | None = None
    dead_groups: float | None = None
    clip_fraction: float | None = None


def parse_state(content: bytes | str, file: str | Path) -> TrainerState:
    """Return a decoded state.json. Raise BadDocument."""
    value = parse_python_json(content, file=file)
    found = convert(value, TrainerState, file=file)
    convert(value, _CheckedSummary, file=file)
    check_iso_time(found.updated_at, "updatedAt", file=file)
    return found


class _CheckedSummary(msgspec.Struct):
    summary: TrainerSummary = msgspec.field(default_factory=TrainerSummary)


def parse_metric(line: bytes | str, file: str | Path, number: int | None = None) -> Metric:
    """Return one decoded line of metrics.jsonl. Raise BadDocument with the line's number."""
    try:
        point = convert(parse_python_json(line, file=file), _Point, file=file)
    except BadDocument as error:
        error.line = number
        raise
    return Metric(**msgspec.structs.asdict(point))
