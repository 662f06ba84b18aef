"""Convert between whole tensors and those of which each rank holds a shard (PyTorch's DTensor)."""

from __future__ import annotations

import torch
from torch.distributed.tensor import DTensor, distribute_tensor


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Return the whole tensor. All ranks must call this at the same time for a sharded one."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return this rank's shard of a whole `value`, sharded as `like` is; all of it if `like` is
    whole.

    Nothing is communicated: every rank has `value`.
    """
    if not isinstance(like, DTensor):
        return value
    placed = distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)
    return placed.clone()  # else the part would keep all of `value` in memory


def local_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Return the part of a sharded tensor that this rank has; another tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
