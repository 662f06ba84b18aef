"""Convert between whole tensors and those of which each rank holds a shard (PyTorch's DTensor).

Importing `torch.distributed.tensor` takes half a second, so only a job with sharded weights does.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor
    from typing_extensions import TypeIs

DTENSOR_MODULE = "torch.distributed.tensor"


def is_dtensor(tensor: object) -> TypeIs[DTensor]:
    """Return whether a tensor is a DTensor. There is none before their module is imported."""
    module = sys.modules.get(DTENSOR_MODULE)
    return module is not None and isinstance(tensor, module.DTensor)


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Return the whole tensor. All ranks must call this at the same time for a sharded one."""
    return tensor.full_tensor() if is_dtensor(tensor) else tensor


def shard_like(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return this rank's shard of a whole `value`, sharded as `like` is; all of it if `like` is
    whole.

    Nothing is communicated: every rank has `value`.
    """
    if not is_dtensor(like):
        return value
    from torch.distributed.tensor import distribute_tensor

    placed = distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)
    return placed.clone()  # else the part would keep all of `value` in memory


def local_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Return the part of a sharded tensor that this rank has; another tensor as it is."""
    return tensor.to_local() if is_dtensor(tensor) else tensor
