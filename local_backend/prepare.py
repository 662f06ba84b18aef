"""What the steps need, made once: model, data, optimizer, and the place to go on from."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

from local_backend import checkpoint, sharding
from local_backend.batches import Encoded, MicroLimit, encode, longest_allowed, steps_per_epoch
from local_backend.curve import Curve, NoCurve
from local_backend.device import choose_device, choose_dtype, hand_back_memory, memory_bytes
from local_backend.errors import TrainerError
from local_backend.job_dir import CHECKPOINTS, METRICS, JobDir
from local_backend.loss import PackedLoss, PlainLoss, loss_of
from local_backend.model import Loaded, load_for_training, trainable
from local_backend.parallel import Team
from local_backend.report import Report, quiet_libraries
from local_backend.settings import Settings


@dataclass
class Run:
    """Everything that the steps need, made once."""

    settings: Settings
    report: Report
    loaded: Loaded
    device: torch.device
    dtype: torch.dtype
    train: Encoded
    validation: Encoded | None
    optimizer: torch.optim.Optimizer
    loss: PlainLoss | PackedLoss
    limit: MicroLimit
    position: checkpoint.Position
    curve: Curve
    folder: Path
    team: Team
    epoch_batches: list[list[int]] | None = None
    last_checkpoint: float = 0.0
    checkpoint_cost: float = 0.0

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        return steps_per_epoch(len(self.train.examples), self.settings.batch_size)

    @property
    def total_steps(self) -> int:
        """Optimizer steps in the whole run."""
        return self.steps_per_epoch * self.settings.epoch_count


def prepare(job_dir: JobDir, settings: Settings, report: Report) -> Run:
    """Model, data, optimizer and the place to go on from."""
    quiet_libraries()
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device)
    torch.manual_seed(settings.seed)
    refuse_idle(report.team, settings, device)
    report.log(f"device {device.type}, computing in {str(dtype).removeprefix('torch.')}")
    loaded, loss = load_model(settings, report, device, dtype)
    report.raise_if_stopped()
    max_length = longest_allowed(settings, loaded)
    train_data = encode(settings.data["train"], settings, loaded, max_length)
    held_out = settings.data.get("validation")
    validation = encode(held_out, settings, loaded, max_length) if held_out else None
    hand_back_memory()
    optimizer = torch.optim.AdamW(
        trainable(loaded.model).values(),
        lr=settings.learning_rate,
        weight_decay=0.0,
        fused=device.type in ("cpu", "cuda"),
    )
    folder = job_dir / CHECKPOINTS
    folder.mkdir(exist_ok=True)
    curve = job_dir / METRICS
    position = checkpoint.restore(folder, loaded.model, optimizer, curve) or checkpoint.Position()
    refuse_apart(report.team, position)
    run = Run(
        settings,
        report,
        loaded,
        device,
        dtype,
        train_data,
        validation,
        optimizer,
        loss,
        MicroLimit(*position.micro) if position.micro else first_limit(settings, device),
        position,
        Curve(curve, position.metrics_bytes) if report.team.leads else NoCurve(),
        folder,
        report.team,
    )
    tell_settings(run, max_length)
    return run


def load_model(
    settings: Settings, report: Report, device: torch.device, dtype: torch.dtype
) -> tuple[Loaded, PackedLoss | PlainLoss]:
    """The model and its loss: here whole, or sharded over the processes, which the team knows."""
    if sharding.wanted(settings, report.team, device, dtype):
        report.team = replace(report.team, sharded=True)
        return sharding.load(settings, report.team, device, dtype)
    loaded = load_for_training(settings, device, dtype)
    return loaded, loss_of(loaded, dtype, device)


def refuse_idle(team: Team, settings: Settings, device: torch.device) -> None:
    """Raise TrainerError for processes that would have nothing to do, or can't meet."""
    if team.size > settings.batch_size:
        raise TrainerError(
            f"{team.size} processes share batches of {settings.batch_size}: some would be idle.",
            fix="lower local.processes, or raise batchSize.",
        )
    if team.size > 1 and device.type == "mps":
        raise TrainerError(
            "Several processes can't train on one Apple GPU.", fix="set local.processes: 1."
        )


def refuse_apart(team: Team, position: checkpoint.Position) -> None:
    """Raise TrainerError for processes that would go on from different steps."""
    if not team.all_say(position.step):
        raise TrainerError(
            "The job's machines don't have the same checkpoint to go on from (this one: step"
            f" {position.step}).",
            fix="give each machine the whole checkpoints folder, or submit with --again.",
        )


def weight_bytes(model: torch.nn.Module) -> int:
    """What this process holds of the weights, between two steps."""
    mine = (w.to_local() if isinstance(w, DTensor) else w for w in model.parameters())
    return sum(weight.numel() * weight.element_size() for weight in mine)


def first_limit(settings: Settings, device: torch.device) -> MicroLimit:
    """How much to put through the model at once, before memory says otherwise."""
    if settings.micro_batch_size is not None:
        return MicroLimit(settings.micro_batch_size, sys.maxsize)
    if device.type == "cuda":
        return MicroLimit(settings.batch_size, 8192)
    roomy = (memory_bytes() or 0) > 12 * 2**30
    return MicroLimit(settings.batch_size, 2048 if roomy else 1024)


def tell_settings(run: Run, max_length: int) -> None:
    """Print each setting as it is used, and put it into the job's summary."""
    settings, loaded = run.settings, run.loaded
    trained = sum(p.numel() for p in trainable(loaded.model).values())
    run.report.summary |= {
        "model": settings.model_name,
        "modelSource": loaded.source,
        "method": settings.method,
        "chatTemplate": "plain" if loaded.plain_template else "the model's own",
        "device": run.device.type,
        "dtype": str(run.dtype).removeprefix("torch."),
        "trainedParameters": trained,
        "weightBytes": weight_bytes(loaded.model),
        "processes": run.team.size,
        "fsdp": run.team.sharded,
        "maxLength": max_length,
        "totalSteps": run.total_steps,
        "train": run.train.summary(),
        "validation": run.validation.summary() if run.validation else None,
    }
    for name, value in run.report.summary.items():
        run.report.log(f"{name}: {json.dumps(value)}")
    if settings.warmup_steps >= run.total_steps:
        run.report.log(
            f"warning: {settings.warmup_steps} warm-up steps and {run.total_steps} steps in all:"
            f" the learning rate never reaches {settings.learning_rate:g}"
        )
    if run.position.step:
        run.report.log(f"going on after step {run.position.step} of {run.total_steps}")
