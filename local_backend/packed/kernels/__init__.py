"""Compiled kernels for what a training step computes between its matrix products, on a CPU.

Whether a job uses them is decided once, before its first step (choice.py). The functions of the
packed path call `kernels_for`, and without kernels compute the same by lines of PyTorch.
"""

from __future__ import annotations

import torch

from local_backend.packed.kernels.calls import SUFFIXES, Kernels, NormSettings, Rotation
from local_backend.packed.kernels.compile import KernelError

__all__ = ["KernelError", "Kernels", "NormSettings", "Rotation", "kernels_for", "use_kernels"]

_current: Kernels | None = None


def use_kernels(kernels: Kernels | None) -> None:
    """Make the packed path compute by these kernels from now on; None: by lines of PyTorch."""
    global _current  # one choice for all layers of this process
    _current = kernels


def kernels_for(x: torch.Tensor, dtype: torch.dtype | None = None) -> Kernels | None:
    """Return the kernels if they compute on the device of `x`, in `dtype` (that of `x`)."""
    if _current is None or x.device.type != "cpu" or (dtype or x.dtype) not in SUFFIXES:
        return None
    return _current
