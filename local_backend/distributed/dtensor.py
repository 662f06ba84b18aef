"""Tensors of which each process may hold a part (PyTorch's DTensor), whole and in parts."""

from __future__ import annotations

import torch
from torch.distributed.tensor import DTensor, distribute_tensor


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """All of it. Of a sharded tensor every process must ask at once."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Of a whole `value` the part that this process has of `like`: all of it if that is whole.

    Nothing is sent: every process has `value`.
    """
    if not isinstance(like, DTensor):
        return value
    placed = distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)
    return placed.clone()  # else the part would keep all of `value` in memory
