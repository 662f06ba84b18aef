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

from local_backend.batches import MicroLimit
from local_backend.device import free_bytes
from local_backend.errors import TrainerError
from local_backend.loss import PackedLoss, PlainLoss, loss_of
from local_backend.memory import ROOM, encoded, need, shapes_of
from local_backend.model import Loaded, load_for_training, load_tokenizer
from local_backend.parallel import Team
from local_backend.settings import Settings
from local_backend.weights import locate

OLDEST = (2, 8)
"""PyTorch from which a block may hold frozen weights in another format than learning ones (its pull
request 154103): adapters in float32 beside weights in bfloat16.
"""
CPU, META = torch.device("cpu"), torch.device("meta")


def wanted(settings: Settings, team: Team, device: torch.device, dtype: torch.dtype) -> bool:
    """What `local.fsdp` says; `auto`: on GPUs of which one does not hold the job.

    Raises TrainerError for what can't be sharded.
    """
    if settings.fsdp == "auto":
        possible = team.size > 1 and device.type == "cuda" and settings.method != "qlora"
        return possible and team.any(not fits_alone(settings, device, dtype))
    if settings.fsdp and settings.method == "qlora":
        raise TrainerError(
            "local.method is qlora, and local.fsdp shards no 4-bit weights.",
            fix="use `method: lora`, or leave local.fsdp out.",
        )
    if settings.fsdp and team.size == 1:
        raise TrainerError(
            "local.fsdp shards a model over several processes, and the job has one.",
            fix="raise local.processes, or leave local.fsdp out.",
        )
    return bool(settings.fsdp)


def fits_alone(settings: Settings, device: torch.device, dtype: torch.dtype) -> bool:
    """True where the device holds the whole model and one sequence at a time, computed twice.

    Where that can't be told without content (a step that depends on its values), it is tried whole.
    """
    config, data = encoded(settings)
    longest = max(data.examples, key=lambda e: len(e.ids))
    one = MicroLimit(1, sys.maxsize)
    try:
        found = need(config, settings, dtype, device, [longest], one, thrifty=True)
    except RuntimeError as error:
        print(f"how much memory a step takes can't be told: {error}", flush=True)
        return True
    free = free_bytes(device)
    return free is None or found.peak <= ROOM * free


def load(
    settings: Settings, team: Team, device: torch.device, dtype: torch.dtype
) -> tuple[Loaded, PackedLoss | PlainLoss]:
    """The model of `load_for_training` over the processes, and its loss.

    The first process reads it, whole, into the machine's memory; the others have its shapes, and
    get block by block what is theirs. Raises TrainerError.
    """
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < OLDEST:
        raise TrainerError(
            f"local.fsdp needs PyTorch {OLDEST[0]}.{OLDEST[1]}, and this is {torch.__version__}.",
            fix="pip install --upgrade torch, or set local.fsdp: false.",
        )
    source = locate(settings.model_name, settings.weights)
    facts: list[Any] = [None]
    if team.leads:
        loaded = load_for_training(settings, CPU, dtype)
        dtypes = {name: tensor.dtype for name, tensor in tensors(loaded.model)}
        facts = [(loaded.stops, dtypes)]
    dist.broadcast_object_list(facts)
    stops, dtypes = facts[0]
    if not team.leads:
        loaded = shapes(settings, source, dtype, stops, dtypes)
    loss = loss_of(loaded, dtype, device, sharded=True)
    mesh = init_device_mesh(device.type, (team.size,))
    for unit in loss.units():
        hand_out(unit, device)
        fully_shard(unit, mesh=mesh, reshard_after_forward=True)
    return loaded, loss


def shapes(
    settings: Settings,
    source: str,
    dtype: torch.dtype,
    stops: list[int],
    dtypes: dict[str, torch.dtype],
) -> Loaded:
    """The model as the first process has it, without content."""
    from transformers import AutoConfig

    loaded = shapes_of(AutoConfig.from_pretrained(source), settings, dtype, META)
    for name, tensor in tensors(loaded.model):
        tensor.data = tensor.data.to(dtypes[name])
    tokenizer, plain = load_tokenizer(source)
    return Loaded(loaded.model, tokenizer, source, stops, plain)


def tensors(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Weights and buffers, by name."""
    return [*model.named_parameters(), *model.named_buffers()]


@torch.no_grad()
def hand_out(unit: nn.Module, device: torch.device) -> None:
    """Give the first process's weights and buffers to all, whole, on `device`.

    Tensors are changed in place, so that two layers that share one still do.
    """
    for _, tensor in tensors(unit):
        if isinstance(tensor, DTensor):  # of a block that is sharded already
            continue
        value = torch.empty_like(tensor, device=device) if tensor.is_meta else tensor.to(device)
        value = value.detach().contiguous()
        dist.broadcast(value.view(-1).view(torch.uint8), 0)
        if isinstance(tensor, nn.Parameter):
            value = nn.Parameter(value, requires_grad=tensor.requires_grad)
        torch.utils.swap_tensors(tensor, value)
