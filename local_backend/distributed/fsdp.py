"""FSDP2: each rank holds a shard of every weight, of its gradient and of the optimizer's state.

PyTorch's `fully_shard` gathers a block's weights when it is called and frees them after it.
Gradients are averaged over the ranks, and each rank gets its shard. So a rank holds its share of
the model, the parts that are not in blocks, and the block in use. Nothing on disk is sharded: a
checkpoint is one whole copy, with any number of ranks.
"""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from local_backend.data.batches import MicroBatchLimit
from local_backend.data.examples import example_lengths
from local_backend.device import free_memory_bytes
from local_backend.distributed.process_group import ProcessGroup
from local_backend.errors import TrainerError
from local_backend.models.load_model import LoadedModel, load_for_training
from local_backend.models.load_tokenizer import load_tokenizer
from local_backend.models.weights import locate_weights
from local_backend.settings import Settings
from local_backend.training.loss import LossFunction, make_loss
from local_backend.training.memory_estimate import (
    USABLE_MEMORY_FRACTION,
    StepEstimator,
    build_weightless_model,
    encode_training_data,
)
from local_backend.training.objectives import Objective

MIN_TORCH = (2, 8)
"""First PyTorch in which a block may hold frozen weights in another format than trained ones (its
pull request 154103): float32 adapters beside bfloat16 weights.
"""
CPU, META = torch.device("cpu"), torch.device("meta")


def should_shard(
    settings: Settings, group: ProcessGroup, device: torch.device, dtype: torch.dtype
) -> bool:
    """Return the value of `local.fsdp`; `auto` shards on GPUs if the job does not fit one.

    Raise TrainerError for what can't be sharded.
    """
    if settings.fsdp == "auto":
        is_possible = group.world_size > 1 and device.type == "cuda" and settings.method != "qlora"
        # GPUs may have different amounts of free memory, and all ranks must decide alike.
        return is_possible and group.any_rank(not fits_on_one_device(settings, device, dtype))
    if settings.fsdp and settings.method == "qlora":
        raise TrainerError(
            "local.method is qlora, and local.fsdp shards no 4-bit weights.",
            fix="use `method: lora`, or leave local.fsdp out.",
        )
    if settings.fsdp and group.world_size == 1:
        raise TrainerError(
            "local.fsdp shards a model over several processes, and the job has one.",
            fix="raise local.processes, or leave local.fsdp out.",
        )
    return bool(settings.fsdp)


def fits_on_one_device(settings: Settings, device: torch.device, dtype: torch.dtype) -> bool:
    """Return True if the device holds the whole model and one sequence, checkpointed.

    If that can't be estimated without content (a step that depends on its values), return True.
    """
    config, data = encode_training_data(settings)
    longest = data.examples[int(example_lengths(data.examples).argmax())]
    one = MicroBatchLimit(1, sys.maxsize)
    estimator = StepEstimator(config, settings, dtype, device)
    try:
        estimate = estimator.estimate([longest], one, gradient_checkpointing=True)
    except RuntimeError as error:
        print(f"can't estimate the memory of a step: {error}", flush=True)
        return True
    free = free_memory_bytes(device)
    return free is None or estimate.peak <= USABLE_MEMORY_FRACTION * free


def load_sharded(
    settings: Settings,
    objective: Objective,
    group: ProcessGroup,
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[LoadedModel, LossFunction]:
    """Load the model of `load_for_training` sharded over the ranks, and return it with its loss.

    Rank 0 reads it whole into the machine's memory. The other ranks build its shapes, and receive
    their shards block by block. Raise TrainerError.
    """
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < MIN_TORCH:
        raise TrainerError(
            f"local.fsdp needs PyTorch {MIN_TORCH[0]}.{MIN_TORCH[1]}, and this is"
            f" {torch.__version__}.",
            fix="pip install --upgrade torch, or set local.fsdp: false.",
        )
    source = locate_weights(settings.model_name, settings.weights)
    # What the other ranks can't derive from the configuration: the stop tokens of the generation
    # settings, and formats of weights and buffers that loading has chosen.
    facts: list[tuple[list[int], dict[str, torch.dtype]] | None] = [None]
    if group.is_rank_zero:
        loaded = load_for_training(settings, CPU, dtype)
        dtypes = {name: tensor.dtype for name, tensor in named_tensors(loaded.model)}
        facts = [(loaded.stop_ids, dtypes)]
    dist.broadcast_object_list(facts)
    assert facts[0] is not None
    stop_ids, dtypes = facts[0]
    if not group.is_rank_zero:
        loaded = build_meta_model(settings, source, dtype, stop_ids, dtypes)
    # Before sharding: the packed path takes references to the model's modules, and FSDP must wrap
    # the modules that are called.
    loss = make_loss(loaded, objective, settings.packed, dtype, device, sharded=True)
    mesh = init_device_mesh(device.type, (group.world_size,))
    # Block by block, so that a device never holds more than one whole block beside its shards.
    for unit in loss.fsdp_units():
        broadcast_module(unit, device)
        fully_shard(unit, mesh=mesh, reshard_after_forward=True)
    return loaded, loss


def build_meta_model(
    settings: Settings,
    source: str,
    dtype: torch.dtype,
    stop_ids: list[int],
    dtypes: dict[str, torch.dtype],
) -> LoadedModel:
    """Return the model as rank 0 has it, without content."""
    from transformers import AutoConfig

    loaded = build_weightless_model(AutoConfig.from_pretrained(source), settings, dtype, META)
    for name, tensor in named_tensors(loaded.model):
        tensor.data = tensor.data.to(dtypes[name])
    tokenizer, is_plain = load_tokenizer(source)
    return LoadedModel(loaded.model, tokenizer, source, stop_ids, is_plain)


def named_tensors(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Return weights and buffers by name."""
    return [*model.named_parameters(), *model.named_buffers()]


@torch.no_grad()
def broadcast_module(unit: nn.Module, device: torch.device) -> None:
    """Send rank 0's weights and buffers to all ranks, whole, on `device`.

    Tensors are changed in place, so that two layers that share one still do.
    """
    for _, tensor in named_tensors(unit):
        if isinstance(tensor, DTensor):  # of a block that is sharded already
            continue
        value = torch.empty_like(tensor, device=device) if tensor.is_meta else tensor.to(device)
        value = value.detach().contiguous()
        # As bytes, which every backend can send, whatever the format.
        dist.broadcast(value.view(-1).view(torch.uint8), 0)
        if isinstance(tensor, nn.Parameter):
            value = nn.Parameter(value, requires_grad=tensor.requires_grad)
        torch.utils.swap_tensors(tensor, value)
