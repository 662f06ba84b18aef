"""Parse job.json into typed settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from local_backend.errors import TrainerError
from local_backend.job_dir import JOB, DistillationRequest, JobDir, JobRequest, WeightSource

VERSION = 1


@dataclass(frozen=True)
class EarlyStopping:
    """Stop after `patience` validations that lower the best loss by less than `threshold`."""

    patience: int
    threshold: float


@dataclass(frozen=True)
class LoraSettings:
    """Adapter settings, with the field names of peft.LoraConfig."""

    r: int
    alpha: float
    dropout: float
    target_modules: str | tuple[str, ...]
    begun_with: tuple[str, ...] = ()
    """The adapted layers of the checkpoint to continue from: they count in place of
    `target_modules`, of which another version may select other layers. Empty at the start."""


@dataclass(frozen=True)
class PreferenceSettings:
    """How pairs of answers are learned, with TRL's names."""

    method: str
    beta: float
    label_smoothing: float
    simpo_gamma: float


@dataclass(frozen=True)
class DataFile:
    """A staged file, the SHA-256 that it must have, and its number of records."""

    path: Path
    sha256: str
    records: int


@dataclass(frozen=True)
class GraderFile:
    """The grader of a job: its file, the SHA-256 that it must have, and Lambda's two limits."""

    path: Path
    sha256: str
    timeout_seconds: float
    memory_mb: int


@dataclass(frozen=True)
class Reinforcement:
    """How answers are sampled and learned from: Bedrock's hyperparameters, and TRL's options.

    `max_prompt_length` None allows every prompt that leaves room for an answer.
    """

    samples_per_prompt: int
    max_new_tokens: int
    max_prompt_length: int | None
    temperature: float = 1.0
    beta: float = 0.0
    epsilon: float = 0.2
    num_iterations: int = 1
    loss_type: str = "dapo"
    scale_rewards: str = "group"


@dataclass(frozen=True)
class DistillationSettings:
    """The teacher's name, where its weights may be, and how it answers."""

    teacher: str
    weights: tuple[WeightSource, ...]
    max_response_length: int
    temperature: float


@dataclass(frozen=True)
class Settings:
    """One job, as its folder describes it.

    `None` means that the trainer chooses a value, and logs its choice.
    """

    customization_type: str
    format: str
    model_name: str
    weights: tuple[WeightSource, ...]
    method: str
    lora: LoraSettings
    epoch_count: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    early_stopping: EarlyStopping | None
    seed: int
    device: str
    dtype: str
    max_length: int | None
    micro_batch_size: int | None
    eval_steps: int | None
    max_truncated_share: float
    processes: int | str
    fsdp: bool | str
    packed: bool | str
    data: Mapping[str, DataFile]
    preference: PreferenceSettings | None
    created_on: str
    """The day on which the job was written, in UTC, as ISO 8601: today for a chat template."""
    grader: GraderFile | None = None
    reinforcement: Reinforcement | None = None
    """Set for REINFORCEMENT_FINE_TUNING alone."""
    distillation: DistillationSettings | None = None
    """The teacher of a distillation, if it is a model on this machine."""


def read_lora(lora: Mapping[str, Any]) -> LoraSettings:
    """Return the adapter settings in job.json's `lora`."""
    targets = lora["target_modules"]
    return LoraSettings(
        lora["r"],
        lora["alpha"],
        lora["dropout"],
        targets if isinstance(targets, str) else tuple(targets),
    )


def read_grader(job_dir: JobDir) -> GraderFile | None:
    """Return the grader in job.json, or None for a job without one."""
    grader = job_dir.read_request().get("grader")
    if grader is None:
        return None
    path = job_dir / grader["path"]
    return GraderFile(path, grader["sha256"], grader["timeoutSeconds"], grader["memoryMb"])


def read_reinforcement(job: JobRequest) -> Reinforcement | None:
    """Return how a reinforcement job learns, or None for a job of another type."""
    if job["customizationType"] != "REINFORCEMENT_FINE_TUNING":
        return None
    parameters = job["hyperParameters"]
    longest = parameters.get("maxPromptLength")
    return Reinforcement(
        int(parameters["trainingSamplePerPrompt"]),
        int(parameters["inferenceMaxTokens"]),
        None if longest is None else int(longest),
        **job.get("reinforcement", {}),
    )


def read_settings(job_dir: JobDir) -> Settings:
    """Return the job's settings. Raise TrainerError for a job.json of another version."""
    job = job_dir.read_request()
    if job.get("version") != VERSION:
        raise TrainerError(
            f"job.json has version {job.get('version')!r}; this trainer reads version {VERSION}.",
            fix="run the cloudft that wrote it, or submit the job again.",
        )
    parameters, stopping = job["hyperParameters"], job["earlyStopping"]
    return Settings(
        customization_type=job["customizationType"],
        format=job["format"],
        model_name=job["model"]["name"],
        weights=tuple(_absolute(weights, job_dir) for weights in job["model"]["weights"]),
        method=job["method"],
        lora=read_lora(job["lora"]),
        epoch_count=int(parameters["epochCount"]),
        batch_size=int(parameters["batchSize"]),
        learning_rate=float(parameters["learningRate"]),
        warmup_steps=int(parameters["learningRateWarmupSteps"]),
        early_stopping=EarlyStopping(**stopping) if stopping else None,
        seed=job["seed"],
        device=job["device"],
        dtype=job["dtype"],
        max_length=job["maxLength"],
        micro_batch_size=job["microBatchSize"],
        eval_steps=job["evalSteps"],
        max_truncated_share=job["maxTruncatedShare"],
        # Jobs that were written before these keys existed have the values that held then.
        processes=job.get("processes", 1),
        fsdp=job.get("fsdp", False),
        packed=job.get("packed", "auto"),
        data={
            role: DataFile(job_dir / file["path"], file["sha256"], file["records"])
            for role, file in job["data"].items()
        },
        preference=PreferenceSettings(**job["preference"]) if "preference" in job else None,
        created_on=_day((job_dir / JOB).stat().st_mtime),
        grader=read_grader(job_dir),
        reinforcement=read_reinforcement(job),
        distillation=_read_distillation(job_dir, job.get("distillation")),
    )


def _read_distillation(
    job_dir: JobDir, request: DistillationRequest | None
) -> DistillationSettings | None:
    if request is None:
        return None
    return DistillationSettings(
        teacher=request["teacher"]["name"],
        weights=tuple(_absolute(weights, job_dir) for weights in request["teacher"]["weights"]),
        max_response_length=request["maxResponseLength"],
        temperature=request["temperature"],
    )


def _absolute(weights: WeightSource, job_dir: JobDir) -> WeightSource:
    """Return a source whose path, of a job that this one starts from, is absolute."""
    if weights["kind"] != "job":
        return weights
    base = [_absolute(one, job_dir) for one in weights["base"]]
    return {**weights, "path": str(job_dir / weights["path"]), "base": base}


def _day(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp, timezone.utc).date().isoformat()
