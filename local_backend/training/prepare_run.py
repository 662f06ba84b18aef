"""Prepare a run: load the model, encode the data, make the optimizer, restore a checkpoint."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from local_backend.data.batches import MicroBatchLimit, steps_per_epoch
from local_backend.data.examples import EncodedData, merge_data
from local_backend.data.token_cache import TokenSource, load_tokens
from local_backend.device import choose_device, choose_dtype, total_memory_bytes, trim_heap
from local_backend.distributed.dtensor import is_dtensor
from local_backend.distributed.process_group import ProcessGroup
from local_backend.errors import TrainerError
from local_backend.job_dir import CHECKPOINTS, KERNELS, METRICS, TOKENS, JobDir, write_json
from local_backend.libraries import pause_collection, silence_libraries
from local_backend.models import four_bits
from local_backend.models.load_model import LoadedModel, load_for_training, trainable_parameters
from local_backend.models.load_tokenizer import fix_template_date
from local_backend.packed import JobSize, choose_kernels, use_kernels
from local_backend.progress import ProgressReporter
from local_backend.settings import Settings
from local_backend.training import checkpoint
from local_backend.training.loss import LossFunction, make_loss
from local_backend.training.loss_curve import LossCurve, NullLossCurve
from local_backend.training.objectives import Objective, make_objective
from local_backend.training.reference import ReferenceModel, attach_reference

if TYPE_CHECKING:
    from local_backend.training.reinforcement.grpo import GrpoTrainer

VALIDATION = "validation"
"""Role of the validation data in job.json, where it is one set."""
VALIDATION_ROLE_PREFIX = f"{VALIDATION}-"
"""Begins the roles of several validation sets: `validation-german`."""


@dataclass
class TrainingRun:
    """Everything that the training loop needs."""

    settings: Settings
    objective: Objective
    reporter: ProgressReporter
    process_group: ProcessGroup
    loaded: LoadedModel
    loss: LossFunction
    device: torch.device
    dtype: torch.dtype
    train: EncodedData
    validation: EncodedData | None
    """All of the validation data."""
    validation_sets: Mapping[str, EncodedData]
    """The sets of it by name, where there are several; the examples are those of `validation`."""
    optimizer: torch.optim.Optimizer
    micro_batch_limit: MicroBatchLimit
    position: checkpoint.Position
    loss_curve: LossCurve
    checkpoints: Path
    grpo: GrpoTrainer | None = None
    """Where examples come from that the model itself writes; None for those of records."""
    epoch_order: np.ndarray | None = None
    """The indices of the epoch's examples in their order."""
    last_checkpoint_at: float = 0.0
    """When the last checkpoint was written (time.monotonic)."""
    checkpoint_seconds: float = 0.0
    """How long that took."""

    @property
    def steps_per_epoch(self) -> int:
        """Return the number of optimizer steps in an epoch."""
        return steps_per_epoch(len(self.train.examples), self.settings.batch_size)

    @property
    def total_steps(self) -> int:
        """Return the number of optimizer steps in the whole run."""
        return self.steps_per_epoch * self.settings.epoch_count


def prepare_run(
    job_dir: JobDir,
    settings: Settings,
    reporter: ProgressReporter,
    *,
    with_reference: bool = True,
) -> TrainingRun:
    """Return the run with model, data, optimizer and the position to continue from.

    Without `with_reference`, what an objective compares with is not computed: a probe takes steps
    whose result does not matter.
    """
    silence_libraries()
    settings = with_begun_layers(job_dir, settings)
    objective = make_objective(settings)
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device)
    torch.manual_seed(settings.seed)
    check_process_count(reporter.process_group, settings, device)
    reporter.log(f"device {device.type}, computing in {str(dtype).removeprefix('torch.')}")
    loaded, loss = load_model_and_loss(settings, objective, reporter, device, dtype)
    reporter.raise_if_stopped()
    train, held_out, max_length = encode_data(settings, objective, loaded, reporter)
    if objective.needs_reference and with_reference:
        # Before a checkpoint is restored: the model is still the one that training starts from.
        limit = initial_micro_batch_limit(settings, device)
        start = ReferenceModel(loaded.model, loss, dtype, limit, reporter)
        attach_reference([train, *held_out.values()], start, job_dir)
    optimizer = make_optimizer(settings, loaded, device)
    folder = job_dir / CHECKPOINTS
    folder.mkdir(exist_ok=True)
    curve = job_dir / METRICS
    restored = checkpoint.restore_newest(folder, loaded.model, optimizer, curve)
    position = restored or checkpoint.Position()
    check_same_checkpoint(reporter.process_group, position)
    is_rank_zero = reporter.process_group.is_rank_zero
    run = TrainingRun(
        settings=settings,
        objective=objective,
        reporter=reporter,
        process_group=reporter.process_group,
        loaded=loaded,
        loss=loss,
        device=device,
        dtype=dtype,
        train=train,
        validation=merge_data(held_out.values()) if held_out else None,
        validation_sets=name_validation_sets(held_out),
        optimizer=optimizer,
        # What an interrupted run found to fit is kept: finding it again would cost a failed step.
        micro_batch_limit=MicroBatchLimit(*position.micro)
        if position.micro
        else initial_micro_batch_limit(settings, device),
        position=position,
        loss_curve=LossCurve(curve, position.metrics_bytes) if is_rank_zero else NullLossCurve(),
        checkpoints=folder,
    )
    choose_run_kernels(job_dir, run, restored)
    log_settings(run, max_length)
    return run


def with_begun_layers(job_dir: JobDir, settings: Settings) -> Settings:
    """Return the settings with the adapted layers of the checkpoint to continue from."""
    if settings.method == "full":
        return settings
    layers = checkpoint.read_adapted_layers(job_dir / CHECKPOINTS)
    return replace(settings, lora=replace(settings.lora, begun_with=layers))


def choose_run_kernels(
    job_dir: JobDir, run: TrainingRun, restored: checkpoint.Position | None
) -> None:
    """Compute with compiled kernels from now on where that pays, and record it.

    In the position, which may go on elsewhere, and in the job's folder: a job whose checkpoints
    are lost starts again with the same digits.
    """
    kernels = None
    if run.loss.name == "packed" and run.device.type == "cpu":
        weights = sum(weight.numel() for weight in run.loaded.model.parameters())
        size = JobSize(run.train.tokens * run.settings.epoch_count, weights)
        recorded = _read_kernels(job_dir) if restored is None else restored.kernels
        kernels, run.position.kernels = choose_kernels(size, recorded, run.reporter.log)
        if run.process_group.is_rank_zero:
            write_json(job_dir / KERNELS, {"digest": run.position.kernels})
    use_kernels(kernels)


def _read_kernels(job_dir: JobDir) -> str | None:
    """Return what an earlier start of the job has recorded; None if it has not, or not readably."""
    try:
        digest = json.loads((job_dir / KERNELS).read_bytes())["digest"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return digest if isinstance(digest, str) else None


def name_validation_sets(held_out: Mapping[str, EncodedData]) -> dict[str, EncodedData]:
    """Return the data of several validation sets by name, of those by role."""
    return {
        role.removeprefix(VALIDATION_ROLE_PREFIX): data
        for role, data in held_out.items()
        if role != VALIDATION
    }


def make_optimizer(
    settings: Settings, loaded: LoadedModel, device: torch.device
) -> torch.optim.Optimizer:
    """Return the optimizer of the weights that are trained."""
    return torch.optim.AdamW(
        trainable_parameters(loaded.model).values(),
        lr=settings.learning_rate,
        weight_decay=0.0,
        fused=device.type in ("cpu", "cuda"),
    )


def load_model_and_loss(
    settings: Settings,
    objective: Objective,
    reporter: ProgressReporter,
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[LoadedModel, LossFunction]:
    """Return the model and its loss function: whole, or sharded over the ranks.

    Marks the reporter's process group as sharded if the model is. Logs which path computes the
    loss, and why. Raise TrainerError.
    """
    if should_shard(settings, reporter.process_group, device, dtype):
        from local_backend.distributed import fsdp

        reporter.process_group = replace(reporter.process_group, is_sharded=True)
        loaded, loss = fsdp.load_sharded(settings, objective, reporter.process_group, device, dtype)
    else:
        with pause_collection():
            loaded = load_for_training(settings, device, dtype)
        loss = make_loss(loaded, objective, settings.packed, dtype, device)
    reporter.log(f"training on the {loss.name} path: {loss.reason}")
    if settings.method == "qlora" and device.type == "cpu":
        reporter.log(four_bits.PRICE_ON_CPU)
    if fix_template_date(loaded.tokenizer, settings.created_on):
        reporter.log(
            f"the chat template writes today's date: {settings.created_on}, the day of the job, in"
            " training and in every later prompt"
        )
    reporter.summary["packed"] = loss.name == "packed"
    return loaded, loss


def should_shard(
    settings: Settings, group: ProcessGroup, device: torch.device, dtype: torch.dtype
) -> bool:
    """Return what fsdp.should_shard returns, without importing FSDP for one process."""
    if group.world_size == 1 and settings.fsdp is not True:
        return False
    from local_backend.distributed import fsdp

    return fsdp.should_shard(settings, group, device, dtype)


def encode_data(
    settings: Settings, objective: Objective, loaded: LoadedModel, reporter: ProgressReporter
) -> tuple[EncodedData, dict[str, EncodedData], int]:
    """Return the training data, the validation data by role, and the maximum length.

    Tokens that are kept are used again. Their keys are written to the job's folder, so that
    `cloudft gc --local` leaves them while the job may need them.
    """
    max_length = objective.resolve_max_length(settings, loaded.context_length)
    record_format = loaded.record_format(settings.format)
    source = TokenSource(objective, record_format, loaded.source, max_length)
    held_out = [
        role
        for role in sorted(settings.data)
        if role == VALIDATION or role.startswith(VALIDATION_ROLE_PREFIX)
    ]
    encoded: dict[str, EncodedData] = {}
    keys: dict[str, str] = {}
    for role in ("train", *held_out):
        kept = load_tokens(source, settings.data[role], settings, poll_of(reporter))
        check_token_ids(kept.data, loaded)
        encoded[role] = kept.data
        if kept.key is not None:
            keys[role] = kept.key
        how = "kept" if kept.was_kept else "made"
        reporter.log(f"tokens of {role}: {how}, {kept.data.records} records")
    if reporter.process_group.is_rank_zero:
        write_json(reporter.job_dir / TOKENS, keys)
    trim_heap()  # texts and lists of tokens are garbage now, and were more than the examples
    return encoded.pop("train"), encoded, max_length


def poll_of(reporter: ProgressReporter) -> Callable[[], None]:
    """Return what raises StopRequested while tokens are made.

    It does nothing where there are several ranks: they stop together, and one makes the tokens.
    """
    alone = reporter.process_group.world_size == 1
    return reporter.raise_if_stopped if alone else lambda: None


def check_token_ids(data: EncodedData, loaded: LoadedModel) -> None:
    """Raise TrainerError for a token that the model's embedding has no row for."""
    embedding = loaded.model.get_input_embeddings().weight
    assert isinstance(embedding, torch.Tensor)
    rows = len(embedding)
    if data.highest_id >= rows:
        token = loaded.tokenizer.convert_ids_to_tokens(data.highest_id)
        raise TrainerError(
            f"The records hold the token {token} (number {data.highest_id}), and the model's"
            f" embedding has {rows} rows: its tokenizer has more tokens than the model.",
            fix="call model.resize_token_embeddings(len(tokenizer)), save the model again, and"
            " train the new rows with `local.method: full`.",
        )


def check_process_count(group: ProcessGroup, settings: Settings, device: torch.device) -> None:
    """Raise TrainerError for ranks that would have no records, or that cannot communicate."""
    if group.world_size > settings.batch_size:
        raise TrainerError(
            f"{group.world_size} processes share batches of {settings.batch_size}: some would be"
            " idle.",
            fix="lower local.processes, or raise batchSize.",
        )
    if group.world_size > 1 and device.type == "mps":
        raise TrainerError(
            "Several processes can't train on one Apple GPU.", fix="set local.processes: 1."
        )


def check_same_checkpoint(group: ProcessGroup, position: checkpoint.Position) -> None:
    """Raise TrainerError if the ranks would continue from different steps."""
    if not group.all_ranks_agree(position.step):
        raise TrainerError(
            "The job's machines don't have the same checkpoint to continue from (this one: step"
            f" {position.step}).",
            fix="give each machine the whole checkpoints folder, or submit with --force-new.",
        )


def local_weight_bytes(model: torch.nn.Module) -> int:
    """Return the bytes of weights that this rank holds between two steps."""
    local = (w.to_local() if is_dtensor(w) else w for w in model.parameters())
    return sum(weight.numel() * weight.element_size() for weight in local)


def initial_micro_batch_limit(settings: Settings, device: torch.device) -> MicroBatchLimit:
    """Return how much to put through the model at once, before memory runs out and lowers it."""
    if settings.micro_batch_size is not None:
        return MicroBatchLimit(settings.micro_batch_size, sys.maxsize)
    if device.type == "cuda":
        return MicroBatchLimit(settings.batch_size, 8192)
    has_much_memory = (total_memory_bytes() or 0) > 12 * 2**30
    return MicroBatchLimit(settings.batch_size, 2048 if has_much_memory else 1024)


def log_settings(run: TrainingRun, max_length: int) -> None:
    """Log each setting as it is used, and add it to the job's summary."""
    settings, loaded = run.settings, run.loaded
    trained = sum(p.numel() for p in trainable_parameters(loaded.model).values())
    run.reporter.summary |= {
        "model": settings.model_name,
        "modelSource": loaded.source,
        "method": settings.method,
        "chatTemplate": loaded.template_name,
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
    if run.validation_sets:
        run.reporter.summary["validationSets"] = {
            name: data.summary() for name, data in run.validation_sets.items()
        }
    for name, value in run.reporter.summary.items():
        run.reporter.log(f"{name}: {json.dumps(value)}")
    if loaded.adapter_reach is not None:
        run.reporter.summary["adapters"] = loaded.adapter_reach.to_json()
        run.reporter.log(f"adapters: {loaded.adapter_reach.describe()}")
    if run.train.last_turn_only:
        run.reporter.log(
            f"warning: of {run.train.last_turn_only} of {run.train.records} records only the last"
            " answer is learned: the chat template renders earlier turns without their reasoning,"
            " or otherwise than when they were written"
        )
    if settings.warmup_steps >= run.total_steps:
        run.reporter.log(
            f"warning: {settings.warmup_steps} warm-up steps and {run.total_steps} steps in all:"
            f" the learning rate never reaches {settings.learning_rate:g}"
        )
    if run.position.step:
        run.reporter.log(f"resuming after step {run.position.step} of {run.total_steps}")
