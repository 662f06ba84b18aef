"""FSDP2: each process holds its part of every weight, of its gradient and of the optimizer's state.

PyTorch's `fully_shard` gathers a block's weights when it is called and lets them go behind it;
gradients come back as the mean over the processes, to each its part. So what a process holds is its
share of the model, what of it is not in blocks, and the block that is at work. On disk nothing is
sharded: a checkpoint is one whole copy, whoever reads it.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from local_backend.data.batches import MicroBatchLimit
from local_backend.device import free_memory_bytes
from local_backend.distributed.process_group import ProcessGroup
from local_backend.errors import TrainerError
from local_backend.models.load_model import LoadedModel, load_for_training, load_tokenizer
from local_backend.models.weights import locate_weights
from local_backend.settings import Settings
from local_backend.training.loss import PackedLoss, PaddedLoss, make_loss
from local_backend.training.memory_estimate import (
    USABLE_MEMORY_FRACTION,
    build_weightless_model,
    encode_training_data,
    estimate_step_memory,
)

MIN_TORCH = (2, 8)
"""PyTorch from which a block may hold frozen weights in another format than learning ones (its pull
request 154103): adapters in float32 beside weights in bfloat16.
"""
CPU, META = torch.device("cpu"), torch.device("meta")


def should_shard(
    settings: Settings, team: ProcessGroup, device: torch.device, dtype: torch.dtype
) -> bool:
    """What `local.fsdp` says; `auto`: on GPUs of which one does not hold the job.

    Raises TrainerError for what can't be sharded.
    """
    if settings.fsdp == "auto":
        possible = team.world_size > 1 and device.type == "cuda" and settings.method != "qlora"
        return possible and team.any_rank(not fits_on_one_device(settings, device, dtype))
    if settings.fsdp and settings.method == "qlora":
        raise TrainerError(
            "local.method is qlora, and local.fsdp shards no 4-bit weights.",
            fix="use `method: lora`, or leave local.fsdp out.",
        )
    if settings.fsdp and team.world_size == 1:
        raise TrainerError(
            "local.fsdp shards a model over several processes, and the job has one.",
            fix="raise local.processes, or leave local.fsdp out.",
        )
    return bool(settings.fsdp)


def fits_on_one_device(settings: Settings, device: torch.device, dtype: torch.dtype) -> bool:
    """True where the device holds the whole model and one sequence at a time, computed twice.

    Where that can't be told without content (a step that depends on its values), it is tried whole.
    """
    config, data = encode_training_data(settings)
    longest = max(data.examples, key=lambda e: len(e.ids))
    one = MicroBatchLimit(1, sys.maxsize)
    try:
        found = estimate_step_memory(
            config, settings, dtype, device, [longest], one, gradient_checkpointing=True
        )
    except RuntimeError as error:
        print(f"how much memory a step takes can't be told: {error}", flush=True)
        return True
    free = free_memory_bytes(device)
    return free is None or found.peak <= USABLE_MEMORY_FRACTION * free


def load_sharded(
    settings: Settings, team: ProcessGroup, device: torch.device, dtype: torch.dtype
) -> tuple[LoadedModel, PackedLoss | PaddedLoss]:
    """The model of `load_for_training` over the processes, and its loss.

    The first process reads it, whole, into the machine's memory; the others have its shapes, and
    get block by block what is theirs. Raises TrainerError.
    """
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < MIN_TORCH:
        raise TrainerError(
            f"local.fsdp needs PyTorch {MIN_TORCH[0]}.{MIN_TORCH[1]}, and this is {torch.__version__}.",
            fix="pip install --upgrade torch, or set local.fsdp: false.",
        )
    source = locate_weights(settings.model_name, settings.weights)
    facts: list[Any] = [None]
    if team.is_rank_zero:
        loaded = load_for_training(settings, CPU, dtype)
        dtypes = {name: tensor.dtype for name, tensor in named_tensors(loaded.model)}
        facts = [(loaded.stop_ids, dtypes)]
    dist.broadcast_object_list(facts)
    stops, dtypes = facts[0]
    if not team.is_rank_zero:
        loaded = build_meta_model(settings, source, dtype, stops, dtypes)
    loss = make_loss(loaded, dtype, device, sharded=True)
    mesh = init_device_mesh(device.type, (team.world_size,))
    for unit in loss.fsdp_units():
        broadcast_module(unit, device)
        fully_shard(unit, mesh=mesh, reshard_after_forward=True)
    return loaded, loss


def build_meta_model(
    settings: Settings,
    source: str,
    dtype: torch.dtype,
    stops: list[int],
    dtypes: dict[str, torch.dtype],
) -> LoadedModel:
    """The model as the first process has it, without content."""
    from transformers import AutoConfig

    loaded = build_weightless_model(AutoConfig.from_pretrained(source), settings, dtype, META)
    for name, tensor in named_tensors(loaded.model):
        tensor.data = tensor.data.to(dtypes[name])
    tokenizer, plain = load_tokenizer(source)
    return LoadedModel(loaded.model, tokenizer, source, stops, plain)


def named_tensors(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Weights and buffers, by name."""
    return [*model.named_parameters(), *model.named_buffers()]


@torch.no_grad()
def broadcast_module(unit: nn.Module, device: torch.device) -> None:
    """Give the first process's weights and buffers to all, whole, on `device`.

    Tensors are changed in place, so that two layers that share one still do.
    """
    for _, tensor in named_tensors(unit):
        if isinstance(tensor, DTensor):  # of a block that is sharded already
            continue
        value = torch.empty_like(tensor, device=device) if tensor.is_meta else tensor.to(device)
        value = value.detach().contiguous()
        dist.broadcast(value.view(-1).view(torch.uint8), 0)
        if isinstance(tensor, nn.Parameter):
            value = nn.Parameter(value, requires_grad=tensor.requires_grad)
        torch.utils.swap_tensors(tensor, value)
