"""What the steps need, made once: model, data, optimizer, and the place to go on from."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

from local_backend.data.batches import (
    EncodedData,
    MicroBatchLimit,
    encode_file,
    resolve_max_length,
    steps_per_epoch,
)
from local_backend.device import choose_device, choose_dtype, total_memory_bytes, trim_heap
from local_backend.distributed import fsdp
from local_backend.distributed.process_group import ProcessGroup
from local_backend.errors import TrainerError
from local_backend.job_dir import CHECKPOINTS, METRICS, JobDir
from local_backend.models.load_model import LoadedModel, load_for_training, trainable_parameters
from local_backend.progress import ProgressReporter, silence_libraries
from local_backend.settings import Settings
from local_backend.training import checkpoint
from local_backend.training.loss import PackedLoss, PaddedLoss, make_loss
from local_backend.training.loss_curve import LossCurve, NullLossCurve


@dataclass
class TrainingRun:
    """Everything that the steps need, made once."""

    settings: Settings
    reporter: ProgressReporter
    loaded: LoadedModel
    device: torch.device
    dtype: torch.dtype
    train: EncodedData
    validation: EncodedData | None
    optimizer: torch.optim.Optimizer
    loss: PaddedLoss | PackedLoss
    micro_batch_limit: MicroBatchLimit
    position: checkpoint.Position
    loss_curve: LossCurve
    checkpoints: Path
    process_group: ProcessGroup
    epoch_batches: list[list[int]] | None = None
    last_checkpoint_at: float = 0.0
    checkpoint_seconds: float = 0.0

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        return steps_per_epoch(len(self.train.examples), self.settings.batch_size)

    @property
    def total_steps(self) -> int:
        """Optimizer steps in the whole run."""
        return self.steps_per_epoch * self.settings.epoch_count


def prepare_run(job_dir: JobDir, settings: Settings, report: ProgressReporter) -> TrainingRun:
    """Model, data, optimizer and the place to go on from."""
    silence_libraries()
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device)
    torch.manual_seed(settings.seed)
    check_process_count(report.process_group, settings, device)
    report.log(f"device {device.type}, computing in {str(dtype).removeprefix('torch.')}")
    loaded, loss = load_model_and_loss(settings, report, device, dtype)
    report.raise_if_stopped()
    max_length = resolve_max_length(settings, loaded)
    train_data = encode_file(settings.data["train"], settings, loaded, max_length)
    held_out = settings.data.get("validation")
    validation = encode_file(held_out, settings, loaded, max_length) if held_out else None
    trim_heap()
    optimizer = torch.optim.AdamW(
        trainable_parameters(loaded.model).values(),
        lr=settings.learning_rate,
        weight_decay=0.0,
        fused=device.type in ("cpu", "cuda"),
    )
    folder = job_dir / CHECKPOINTS
    folder.mkdir(exist_ok=True)
    curve = job_dir / METRICS
    position = (
        checkpoint.restore_newest(folder, loaded.model, optimizer, curve) or checkpoint.Position()
    )
    check_same_checkpoint(report.process_group, position)
    run = TrainingRun(
        settings,
        report,
        loaded,
        device,
        dtype,
        train_data,
        validation,
        optimizer,
        loss,
        MicroBatchLimit(*position.micro)
        if position.micro
        else initial_micro_batch_limit(settings, device),
        position,
        LossCurve(curve, position.metrics_bytes)
        if report.process_group.is_rank_zero
        else NullLossCurve(),
        folder,
        report.process_group,
    )
    log_settings(run, max_length)
    return run


def load_model_and_loss(
    settings: Settings, report: ProgressReporter, device: torch.device, dtype: torch.dtype
) -> tuple[LoadedModel, PackedLoss | PaddedLoss]:
    """The model and its loss: here whole, or sharded over the processes, which the team knows."""
    if fsdp.should_shard(settings, report.process_group, device, dtype):
        report.process_group = replace(report.process_group, is_sharded=True)
        return fsdp.load_sharded(settings, report.process_group, device, dtype)
    loaded = load_for_training(settings, device, dtype)
    return loaded, make_loss(loaded, dtype, device)


def check_process_count(team: ProcessGroup, settings: Settings, device: torch.device) -> None:
    """Raise TrainerError for processes that would have nothing to do, or can't meet."""
    if team.world_size > settings.batch_size:
        raise TrainerError(
            f"{team.world_size} processes share batches of {settings.batch_size}: some would be idle.",
            fix="lower local.processes, or raise batchSize.",
        )
    if team.world_size > 1 and device.type == "mps":
        raise TrainerError(
            "Several processes can't train on one Apple GPU.", fix="set local.processes: 1."
        )


def check_same_checkpoint(team: ProcessGroup, position: checkpoint.Position) -> None:
    """Raise TrainerError for processes that would go on from different steps."""
    if not team.all_ranks_agree(position.step):
        raise TrainerError(
            "The job's machines don't have the same checkpoint to go on from (this one: step"
            f" {position.step}).",
            fix="give each machine the whole checkpoints folder, or submit with --force-new.",
        )


def local_weight_bytes(model: torch.nn.Module) -> int:
    """What this process holds of the weights, between two steps."""
    mine = (w.to_local() if isinstance(w, DTensor) else w for w in model.parameters())
    return sum(weight.numel() * weight.element_size() for weight in mine)


def initial_micro_batch_limit(settings: Settings, device: torch.device) -> MicroBatchLimit:
    """How much to put through the model at once, before memory says otherwise."""
    if settings.micro_batch_size is not None:
        return MicroBatchLimit(settings.micro_batch_size, sys.maxsize)
    if device.type == "cuda":
        return MicroBatchLimit(settings.batch_size, 8192)
    roomy = (total_memory_bytes() or 0) > 12 * 2**30
    return MicroBatchLimit(settings.batch_size, 2048 if roomy else 1024)


def log_settings(run: TrainingRun, max_length: int) -> None:
    """Print each setting as it is used, and put it into the job's summary."""
    settings, loaded = run.settings, run.loaded
    trained = sum(p.numel() for p in trainable_parameters(loaded.model).values())
    run.reporter.summary |= {
        "model": settings.model_name,
        "modelSource": loaded.source,
        "method": settings.method,
        "chatTemplate": "plain" if loaded.uses_plain_template else "the model's own",
        "device": run.device.type,
        "dtype": str(run.dtype).removeprefix("torch."),
        "trainedParameters": trained,
        "weightBytes": local_weight_bytes(loaded.model),
        "processes": run.process_group.world_size,
        "fsdp": run.process_group.is_sharded,
        "maxLength": max_length,
        "totalSteps": run.total_steps,
        "train": run.train.summary(),
        "validation": run.validation.summary() if run.validation else None,
    }
    for name, value in run.reporter.summary.items():
        run.reporter.log(f"{name}: {json.dumps(value)}")
    if settings.warmup_steps >= run.total_steps:
        run.reporter.log(
            f"warning: {settings.warmup_steps} warm-up steps and {run.total_steps} steps in all:"
            f" the learning rate never reaches {settings.learning_rate:g}"
        )
    if run.position.step:
        run.reporter.log(f"going on after step {run.position.step} of {run.total_steps}")
