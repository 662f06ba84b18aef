"""Gated activations of the MLP: act(gate) * up, of one tensor that holds both."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F

from local_backend.packed.autograd import Context, run_function
from local_backend.packed.kernels import kernels_for

_GELU = {"gelu": "none", "gelu_pytorch_tanh": "tanh", "gelu_new": "tanh"}
"""PyTorch's `approximate` by transformers' name of the activation."""
ACTIVATIONS = ("silu", *_GELU)
"""transformers' names of the activations that the packed path computes."""


def gate(gate_up: torch.Tensor, activation: str, columns: int = 0) -> torch.Tensor:
    """Return act(gate) * up: [tokens, 2 x width] -> [tokens, width].

    `columns`: those of the adapters that the next layer puts beside it.
    """
    if activation == "silu":
        return run_function(SwiGlu, gate_up, columns)
    return run_function(GatedGelu, gate_up, _GELU[activation])


class SwiGlu(torch.autograd.Function):
    """silu(gate) * up, of [tokens, 2 x width] that holds both. `columns` as in NormSettings."""

    @staticmethod
    def forward(ctx: Context, gate_up: torch.Tensor, columns: int = 0) -> torch.Tensor:
        """Save the input."""
        # Plain PyTorch would also save silu(gate); recomputing it in backward is elementwise.
        ctx.save_for_backward(gate_up)
        kernels = kernels_for(gate_up)
        if kernels is not None:
            return kernels.swiglu(gate_up, columns)
        gate, up = gate_up.chunk(2, -1)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Context, grad_output: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the gradient of both halves."""
        [gate_up] = ctx.saved_tensors
        kernels = kernels_for(gate_up)
        if kernels is not None:
            return kernels.swiglu_backward(gate_up, grad_output), None
        gate, up = gate_up.chunk(2, -1)
        # Both halves are written into one tensor, because the layer below expects one: two
        # gradients would have to be concatenated, which is one more copy.
        grad_input = torch.empty_like(gate_up)
        grad_gate, grad_up = grad_input.chunk(2, -1)
        torch.mul(F.silu(gate), grad_output, out=grad_up)
        grad_gate.copy_(torch.ops.aten.silu_backward(grad_output * up, gate))
        return grad_input, None


class GatedContext(Context, Protocol):
    """What GatedGelu keeps besides tensors."""

    approximate: str


class GatedGelu(torch.autograd.Function):
    """gelu(gate) * up, of [tokens, 2 x width] that holds both; `approximate` is none or tanh."""

    @staticmethod
    def forward(ctx: GatedContext, gate_up: torch.Tensor, approximate: str) -> torch.Tensor:
        """Save the input."""
        ctx.save_for_backward(gate_up)
        ctx.approximate = approximate
        gate, up = gate_up.chunk(2, -1)
        return F.gelu(gate, approximate=approximate).mul_(up)

    @staticmethod
    def backward(ctx: GatedContext, grad_output: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the gradient of both halves, in one tensor as SwiGlu does."""
        [gate_up] = ctx.saved_tensors
        gate, up = gate_up.chunk(2, -1)
        grad_input = torch.empty_like(gate_up)
        grad_gate, grad_up = grad_input.chunk(2, -1)
        torch.mul(F.gelu(gate, approximate=ctx.approximate), grad_output, out=grad_up)
        grad_gate.copy_(
            torch.ops.aten.gelu_backward(grad_output * up, gate, approximate=ctx.approximate)
        )
        return grad_input, None
