"""What the autograd functions of the packed path share.

Each of them replaces a few lines of PyTorch and uses less memory. Every one has its gradient
written out, and tests compare it with the plain lines. Matrix products are in the inputs' format;
sums and norms are in float32.
"""

from __future__ import annotations

from typing import Protocol

import torch


class Context(Protocol):
    """The part of autograd's `ctx` that the functions here use (torch.autograd.function)."""

    needs_input_grad: tuple[bool, ...]
    saved_tensors: tuple[torch.Tensor, ...]

    def save_for_backward(self, *tensors: torch.Tensor) -> None:
        """Keep tensors for `backward`, where autograd checks that nobody changed them."""


class NoContext:
    """A context of which nothing is read later: without gradients there is no backward pass."""

    needs_input_grad = (False,) * 64
    """For as many inputs as a function may have."""

    def save_for_backward(self, *tensors: torch.Tensor) -> None:
        """Keep nothing."""


def run_function(function: type[torch.autograd.Function], *inputs: object) -> torch.Tensor:
    """Return the result of an autograd function, whose `apply` PyTorch leaves untyped.

    Without gradients its forward pass alone is called: `apply` takes longer than a small product.
    """
    output: torch.Tensor
    if torch.is_grad_enabled():
        output = function.apply(*inputs)
    else:
        output = function.forward(NoContext(), *inputs)
    return output
