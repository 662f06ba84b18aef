"""Linear layers: which modules are one, their weights and widths."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

FAMILY_MODULES = "transformers.models."
"""Where the families' own subclasses of nn.Linear are; those of quantizers are elsewhere."""


def is_linear(module: nn.Module) -> bool:
    """Return True for nn.Linear and for GPT-2's Conv1D, which is one with its weight transposed.

    A family's own subclass is one if it computes what nn.Linear does: a router that returns two
    tensors is none, nor a projection in groups.
    """
    if type(module).__name__ == "Conv1D":
        return True
    if not isinstance(module, nn.Linear):
        return False
    has_own_forward = type(module).forward is not nn.Linear.forward
    if has_own_forward and type(module).__module__.startswith(FAMILY_MODULES):
        return _computes_linear(module)
    return True


def _computes_linear(module: nn.Linear) -> bool:
    weight = module.weight
    x = torch.ones(1, 2, weight.shape[1], device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        expected = F.linear(x, weight, module.bias)
        try:
            out = module(x)
        except (RuntimeError, TypeError, ValueError, IndexError):
            return False
        if not isinstance(out, torch.Tensor) or out.shape != expected.shape:
            return False
        return not has_content(weight) or torch.allclose(out, expected, rtol=1e-2, atol=1e-3)


def has_content(weight: torch.Tensor) -> bool:
    """Return False for a tensor of shape and format alone: on `meta`, or under FakeTensorMode."""
    return type(weight) in (nn.Parameter, torch.Tensor) and weight.device.type != "meta"


def linear_shape(base: nn.Module) -> tuple[int, int]:
    """Return the output and input width of a linear layer."""
    if isinstance(base, nn.Linear):
        return base.out_features, base.in_features
    width, out = weight_of(base).shape
    return int(out), int(width)


def weight_of(layer: nn.Module) -> torch.Tensor:
    """Return the weight of a linear layer."""
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    return weight
