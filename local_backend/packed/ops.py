"""The trainer's own operations: each does what some lines of plain PyTorch do, with less to store.

Every one is an autograd function with the gradient written out; tests hold them against the plain
lines. Matrices are multiplied in the inputs' format, sums and norms are taken in float32.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

LOGIT_CHUNK_ROWS = 256
"""Positions whose logits over the vocabulary are there at once."""


class RmsNorm(torch.autograd.Function):
    """x / rms(x) * weight, in `dtype`; x is float32 [tokens, width]. The weight may learn."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float, dtype: torch.dtype
    ) -> torch.Tensor:
        """Keeps x and each row's 1 / rms."""
        scale = torch.rsqrt(x.square().mean(-1, keepdim=True).add_(eps))
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight.float()).to(dtype)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        """Of x and, where it is asked for, of the weight."""
        x, weight, scale = ctx.saved_tensors
        normal = x * scale
        gradient = gradient.float()
        of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight = (gradient * normal).sum(0).to(weight.dtype)
        inner = gradient * weight.float()
        mean = (inner * normal).mean(-1, keepdim=True)
        return inner.sub_(normal.mul_(mean)).mul_(scale), of_weight, None, None


class SwiGlu(torch.autograd.Function):
    """silu(gate) * up, of [tokens, 2 x width] that holds both."""

    @staticmethod
    def forward(ctx: Any, both: torch.Tensor) -> torch.Tensor:
        """Keeps what it was given."""
        ctx.save_for_backward(both)
        gate, up = both.chunk(2, -1)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        """Of both."""
        [both] = ctx.saved_tensors
        gate, up = both.chunk(2, -1)
        found = torch.empty_like(both)
        of_gate, of_up = found.chunk(2, -1)
        torch.mul(F.silu(gate), gradient, out=of_up)
        of_gate.copy_(torch.ops.aten.silu_backward(gradient * up, gate))
        return found


class FusedLinear(torch.autograd.Function):
    """Several linear layers of one input whose whole weights learn: [tokens, in] -> [tokens, out].

    `weight` [out, in] holds the `parts` one below the other, in the input's format.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        *parts: torch.Tensor,
    ) -> torch.Tensor:
        """Keeps the input."""
        ctx.save_for_backward(x, weight)
        ctx.parts = [(len(part), part.dtype) for part in parts]
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        """Of the input, the bias and the parts, where they are asked for."""
        x, weight = ctx.saved_tensors
        of_x = gradient @ weight if ctx.needs_input_grad[0] else None
        of_bias = gradient.sum(0) if ctx.needs_input_grad[2] else None
        if not any(ctx.needs_input_grad[3:]):
            return of_x, None, of_bias, *(None for _ in ctx.parts)
        found = (gradient.T @ x).split([size for size, _ in ctx.parts])
        kept = [part.to(dtype) for part, (_, dtype) in zip(found, ctx.parts, strict=True)]
        return of_x, None, of_bias, *kept


class FusedLoraLinear(torch.autograd.Function):
    """Several frozen linear layers of one input with their LoRA updates.

    `weight` [out, in + ranks] has the layers' weights one below the other and beside each its B, so
    that W x + B (s A x) is one product and is rounded once. In bfloat16 that matters: an update
    that is small beside W x is lost when it is added to what was rounded already. `parts` are the
    A and B, two each; `scale` the s; `dropped` the input that the A see: x itself without dropout.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        dropped: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        scale: float,
        *parts: torch.Tensor,
    ) -> torch.Tensor:
        """Keeps the input and beside it what the A make of it."""
        ctx.scale, ctx.same = scale, dropped is x
        ctx.sizes = [(len(a), len(b)) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        down = torch.cat(parts[::2]).mul_(scale).to(x.dtype)
        wide = torch.cat([x, F.linear(dropped, down)], 1)
        ctx.save_for_backward(wide, wide if ctx.same else dropped, weight, down)
        return F.linear(wide, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        """Of the input, and of every A and B."""
        wide, dropped, weight, down = ctx.saved_tensors
        width, whole = down.shape[1], ctx.needs_input_grad[0]
        back = gradient @ (weight if whole else weight[:, width:])
        up = back[:, width:] if whole else back
        of_a = (up.T @ dropped[:, :width]).float().mul_(ctx.scale)
        found: list[torch.Tensor] = []
        first, at = width, 0
        for of_one, (rank, out) in zip(
            of_a.split([rank for rank, _ in ctx.sizes]), ctx.sizes, strict=True
        ):
            of_b = gradient[:, at : at + out].T @ wide[:, first : first + rank]
            found += [of_one, of_b.float()]
            first, at = first + rank, at + out
        of_x, of_dropped = back[:, :width] if whole else None, None
        if not ctx.same:
            of_dropped = up @ down
        elif of_x is not None:
            of_x = of_x.addmm(up, down)
        return of_x, of_dropped, None, None, None, *found


class ChunkedCrossEntropy(torch.autograd.Function):
    """The summed cross-entropy of `targets` under logits hidden @ weight.T, some rows at a time.

    The gradient is made on the way forward, while the logits are there.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, learn: bool
    ) -> torch.Tensor:
        """`hidden` [learned, width]; a float32 scalar."""
        used = weight.to(hidden.dtype)
        total = torch.zeros((), device=hidden.device, dtype=torch.float64)
        of_hidden = torch.empty_like(hidden) if learn else None
        of_weight = torch.zeros_like(weight) if learn and weight.requires_grad else None
        for at in range(0, len(hidden), LOGIT_CHUNK_ROWS):
            part, wanted = (
                hidden[at : at + LOGIT_CHUNK_ROWS],
                targets[at : at + LOGIT_CHUNK_ROWS, None],
            )
            logits = (part @ used.T).float()
            top = logits.logsumexp(-1, keepdim=True)
            total += (top - logits.gather(1, wanted)).sum()
            if of_hidden is None:
                continue
            share = logits.sub_(top).exp_()
            share.scatter_add_(1, wanted, torch.full_like(top, -1.0))
            share = share.to(hidden.dtype)
            of_hidden[at : at + LOGIT_CHUNK_ROWS] = share @ used
            if of_weight is not None:
                of_weight += share.T @ part
        ctx.save_for_backward(*(x for x in (of_hidden, of_weight) if x is not None))
        return total.float()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        """Of hidden, and of the weight where it learns."""
        of_hidden, *rest = ctx.saved_tensors
        of_weight = rest[0] * gradient if rest else None
        return of_hidden * gradient, of_weight, None, None
