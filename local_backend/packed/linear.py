"""Linear layers that read one input as one product, with and without LoRA updates."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F

from local_backend.packed.autograd import Context


class LinearContext(Context, Protocol):
    """What FusedLinear keeps besides tensors: each part's height and format."""

    parts: list[tuple[int, torch.dtype]]


class FusedLinear(torch.autograd.Function):
    """Several trained linear layers of one input as one product: [tokens, in] -> [tokens, out].

    `weight` [out, in] holds the `parts` one below the other, in the input's format.
    """

    @staticmethod
    def forward(
        ctx: LinearContext,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        *parts: torch.Tensor,
    ) -> torch.Tensor:
        """Save the input."""
        ctx.save_for_backward(x, weight)
        # The parts are arguments only so that autograd requests their gradients: the product uses
        # `weight`, their copy in the format of the computation.
        ctx.parts = [(len(part), part.dtype) for part in parts]
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: LinearContext, grad_output: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of the input, the bias and the parts, where needed."""
        x, weight = ctx.saved_tensors
        grad_x = grad_output @ weight if ctx.needs_input_grad[0] else None
        grad_bias = grad_output.sum(0) if ctx.needs_input_grad[2] else None
        if not any(ctx.needs_input_grad[3:]):
            return grad_x, None, grad_bias, *(None for _ in ctx.parts)
        grad_weight = (grad_output.T @ x).split([height for height, _ in ctx.parts])
        grad_parts = [
            grad.to(dtype) for grad, (_, dtype) in zip(grad_weight, ctx.parts, strict=True)
        ]
        return grad_x, None, grad_bias, *grad_parts


class LoraContext(Context, Protocol):
    """What FusedLoraLinear keeps besides tensors."""

    scale: float
    has_dropout: bool
    sizes: list[tuple[int, int]]
    """For each layer: the rank of its A and the number of rows of its B."""


class FusedLoraLinear(torch.autograd.Function):
    """Several frozen linear layers of one input with their LoRA updates.

    `weight` [out, in + ranks] has the layers' weights one below the other and beside each its B, so
    that W x + B (s A x) is one product and is rounded once. In bfloat16 that matters: an update
    that is small beside W x is lost if it is added to an already rounded result. `parts` are the A
    and B, alternating; `scale` is s; `dropped` is the input of the A: x itself without dropout.
    """

    @staticmethod
    def forward(
        ctx: LoraContext,
        x: torch.Tensor,
        dropped: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        scale: float,
        *parts: torch.Tensor,
    ) -> torch.Tensor:
        """Save the input with the outputs of the A beside it."""
        ctx.scale, ctx.has_dropout = scale, dropped is not x
        ctx.sizes = [(len(a), len(b)) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        # s is applied to A in float32, before the rounding to the format of the product.
        down = torch.cat(parts[::2]).mul_(scale).to(x.dtype)
        wide = _put_beside(x, F.linear(dropped, down))
        # `wide` begins with x, so x need not be saved; with dropout the A saw another input.
        ctx.save_for_backward(wide, dropped if ctx.has_dropout else wide, weight, down)
        return F.linear(wide, weight, bias)

    @staticmethod
    def backward(ctx: LoraContext, grad_output: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of the input, and of every A and B."""
        wide, dropped, weight, down = ctx.saved_tensors
        width, needs_grad_x = down.shape[1], ctx.needs_input_grad[0]
        # The first block's input needs no gradient (embeddings are frozen). Then only the columns
        # of the B are multiplied: `grad_hidden` is the gradient of s A x, [tokens, ranks].
        grad_wide = grad_output @ (weight if needs_grad_x else weight[:, width:])
        grad_hidden = grad_wide[:, width:] if needs_grad_x else grad_wide
        grad_a = (grad_hidden.T @ dropped[:, :width]).float().mul_(ctx.scale)
        grad_parts: list[torch.Tensor] = []
        column, row = width, 0
        for grad_one, (rank, height) in zip(
            grad_a.split([rank for rank, _ in ctx.sizes]), ctx.sizes, strict=True
        ):
            grad_b = grad_output[:, row : row + height].T @ wide[:, column : column + rank]
            grad_parts += [grad_one, grad_b.float()]
            column, row = column + rank, row + height
        grad_x = grad_wide[:, :width] if needs_grad_x else None
        grad_dropped = None
        if ctx.has_dropout:
            grad_dropped = grad_hidden @ down
        elif grad_x is not None:  # x and `dropped` are one tensor: its gradients add up here
            grad_x = grad_x.addmm(grad_hidden, down)
        return grad_x, grad_dropped, None, None, None, *grad_parts


def _put_beside(x: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Return [x, columns]: in the memory of `x` if that was allocated for both, else a copy."""
    rows, width = len(x), x.shape[1] + columns.shape[1]
    if (
        x.stride() != (width, 1)
        or x.storage_offset()
        or x.untyped_storage().nbytes() != (rows * width * x.element_size())
    ):
        return torch.cat([x, columns], 1)
    wide = x.as_strided((rows, width), (width, 1))
    wide[:, x.shape[1] :] = columns
    return wide
