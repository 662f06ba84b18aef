"""The trainer's own operations: each does what some lines of plain PyTorch do, with less to store.

Every one is an autograd function with the gradient written out; tests hold them against the plain
lines. Matrices are multiplied in the inputs' format, sums and norms are taken in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from local_backend.packing import Group, Layout

ROWS = 256
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


class Project(torch.autograd.Function):
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


class Adapt(torch.autograd.Function):
    """Several frozen linear layers of one input with their LoRA updates.

    `weight` [out, in + ranks] has the layers' weights one below the other and beside each its B, so
    that W x + B (s A x) is one product and is rounded once. In bfloat16 that matters: an update
    that is small beside W x is lost when it is added to what was rounded already. `parts` are the
    A and B, two each; `scales` the s; `dropped` the input that the A see: x itself without dropout.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        dropped: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        scales: Sequence[float],
        *parts: torch.Tensor,
    ) -> torch.Tensor:
        """Keeps the input and beside it what the A make of it."""
        ctx.scales, ctx.same = scales, dropped is x
        wide = torch.cat([x, F.linear(dropped, scaled(parts[::2], scales, x.dtype))], 1)
        ctx.save_for_backward(wide, wide if ctx.same else dropped, weight, *parts)
        return F.linear(wide, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        """Of the input, and of every A and B."""
        wide, dropped, weight, *parts = ctx.saved_tensors
        a, width = parts[::2], parts[0].shape[1]
        whole = ctx.needs_input_grad[0]
        back = gradient @ (weight if whole else weight[:, width:])
        up = back[:, width:] if whole else back
        found: list[torch.Tensor] = []
        at = first = 0
        seen = dropped[:, :width]
        of_a = (up.T @ seen).float()
        for scale, b in zip(ctx.scales, parts[1::2], strict=True):
            rank = slice(first, first + b.shape[1])
            down = wide[:, width:][:, rank]
            found += [of_a[rank] * scale, (gradient[:, at : at + len(b)].T @ down).float()]
            at, first = at + len(b), first + b.shape[1]
        of_x, of_dropped = back[:, :width] if whole else None, None
        if not ctx.same:
            of_dropped = up @ scaled(a, ctx.scales, gradient.dtype)
        elif of_x is not None:
            of_x = of_x.addmm(up, scaled(a, ctx.scales, gradient.dtype))
        return of_x, of_dropped, None, None, None, *found


def scaled(
    parts: Sequence[torch.Tensor], scales: Sequence[float], dtype: torch.dtype
) -> torch.Tensor:
    """Matrices times numbers, one below the other."""
    return torch.cat([part * s for part, s in zip(parts, scales, strict=True)]).to(dtype)


class Attend(torch.autograd.Function):
    """Causal attention within each row of a layout, rotary positions included.

    `qkv` is [tokens, (heads + 2 x kv_heads) x size], the result [tokens, heads x size].
    """

    @staticmethod
    def forward(
        ctx: Any,
        qkv: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        layout: Layout,
        heads: int,
        kv_heads: int,
    ) -> torch.Tensor:
        """Keeps queries and keys as turned, values, and the weights of short rows."""
        tokens = len(qkv)
        turned = qkv.view(tokens, heads + 2 * kv_heads, -1).clone()
        turned[:, :-kv_heads] = turn(turned[:, :-kv_heads], cos, sin)
        outs, kept = [], []
        for group in layout.groups:
            q, k, v = gathered(turned, group, heads, kv_heads)
            out, weights = attended(q, k, v, group)
            outs.append(rows_of(out))
            kept.append(weights)
        ctx.save_for_backward(turned, cos, sin, *(w for w in kept if w is not None))
        ctx.layout, ctx.heads, ctx.kv_heads = layout, heads, kv_heads
        return torch.cat(outs)[layout.back].view(tokens, -1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        """Of qkv."""
        turned, cos, sin, *kept = ctx.saved_tensors
        heads, kv_heads, layout = ctx.heads, ctx.kv_heads, ctx.layout
        found = torch.zeros_like(turned)
        outward = gradient.reshape(len(turned), heads, -1)
        weights = iter(kept)
        for group in layout.groups:
            q, k, v = gathered(turned, group, heads, kv_heads)
            own = padded(outward, group)
            if group.inside is not None:
                own = own.mul_(group.inside.view(*group.index.shape, 1, 1))
            own = grouped(own, kv_heads)
            past = None if group.bias is None else next(weights)
            scatter(found, group, heads, kv_heads, *attended_backward(q, k, v, past, own, group))
        found[:, :-kv_heads] = turn(found[:, :-kv_heads], cos, -sin)
        return found.view(len(turned), -1), None, None, None, None, None


def turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions (Su et al. 2021) of [tokens, heads, size]; cos, sin [tokens, 1, size/2]."""
    a, b = x.float().chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(x.dtype)


def padded(x: torch.Tensor, group: Group) -> torch.Tensor:
    """The group's rows of [tokens, heads, size] as [rows, longest, heads, size].

    What stands in a gap comes after its row, which does not see it.
    """
    return x[group.index.flatten()].view(*group.index.shape, *x.shape[1:])


def grouped(x: torch.Tensor, kv_heads: int) -> torch.Tensor:
    """[rows, longest, heads, size] -> [rows x kv_heads, queries a key x longest, size]."""
    rows, longest, heads, size = x.shape
    x = x.view(rows, longest, kv_heads, heads // kv_heads, size).permute(0, 2, 3, 1, 4)
    return x.reshape(rows * kv_heads, -1, size)


def gathered(
    turned: torch.Tensor, group: Group, heads: int, kv_heads: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values of a group, the keys and values that come before it in front."""
    rows = padded(turned, group)
    if group.before:
        ahead = turned[: group.before, heads:].expand(len(rows), -1, -1, -1)
        keys = torch.cat([ahead, rows[:, :, heads:]], dim=1)
    else:
        keys = rows[:, :, heads:]
    k, v = keys[:, :, :kv_heads], keys[:, :, kv_heads:]
    return grouped(rows[:, :, :heads], kv_heads), grouped(k, kv_heads), grouped(v, kv_heads)


def attended(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, group: Group
) -> tuple[tuple[torch.Tensor, Group], torch.Tensor | None]:
    """The mixed values, and the weights where they are kept."""
    if group.bias is None:
        return (long_rows(q, k, v, group), group), None
    bias = group.bias.to(q.dtype).repeat(q.shape[1] // len(group.bias), 1)
    scores = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=q.shape[-1] ** -0.5)
    weights = scores.softmax(-1, dtype=torch.float32).to(q.dtype)
    return (weights @ v, group), weights


def long_rows(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, group: Group) -> torch.Tensor:
    """Rows whose scores are never all there (flash attention), each in one pass. In float32 on a
    CPU, where bfloat16 is slower backwards.
    """
    rows, longest = group.index.shape
    kv_heads, size = len(q) // rows, q.shape[-1]
    dtype = torch.float32 if q.device.type == "cpu" else q.dtype
    out = F.scaled_dot_product_attention(
        q.view(rows, -1, longest, size).to(dtype),
        *(x.view(rows, kv_heads, longest, size).to(dtype) for x in (k, v)),
        is_causal=True,
        enable_gqa=True,
    )
    return out.to(q.dtype).reshape(q.shape)


def attended_backward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    weights: torch.Tensor | None,
    gradient: torch.Tensor,
    group: Group,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of queries, keys and values."""
    if weights is None:
        with torch.enable_grad():
            leaves = [x.detach().requires_grad_() for x in (q, k, v)]
            return torch.autograd.grad(long_rows(*leaves, group), leaves, gradient)
    of_v = weights.transpose(1, 2) @ gradient
    of_weights = (gradient @ v.transpose(1, 2)).float()
    held = weights.float()
    inner = of_weights.mul_(held)
    of_scores = inner.sub_(held.mul_(inner.sum(-1, keepdim=True))).mul_(q.shape[-1] ** -0.5)
    of_scores = of_scores.to(q.dtype)
    return of_scores @ k, of_scores.transpose(1, 2) @ q, of_v


def rows_of(found: tuple[torch.Tensor, Group]) -> torch.Tensor:
    """A group's result as [rows x longest, heads, size]."""
    out, group = found
    rows, longest = group.index.shape
    out = out.view(rows, -1, longest, out.shape[-1]).transpose(1, 2)
    return out.reshape(rows * longest, -1, out.shape[-1])


def scatter(
    found: torch.Tensor,
    group: Group,
    heads: int,
    kv_heads: int,
    of_q: torch.Tensor,
    of_k: torch.Tensor,
    of_v: torch.Tensor,
) -> None:
    """Add a group's gradients to those of all tokens, [tokens, heads + 2 x kv_heads, size]."""
    rows, longest = group.index.shape
    for first, part in ((0, of_q), (heads, of_k), (heads + kv_heads, of_v)):
        wide = part.view(rows, -1, group.before + longest if first else longest, part.shape[-1])
        count = wide.shape[1]
        if first and group.before:
            ahead = wide[:, :, : group.before].sum(0).transpose(0, 1)
            found[: group.before, first : first + count] += ahead
            wide = wide[:, :, group.before :]
        own = wide.transpose(1, 2).reshape(rows * longest, count, -1)
        found[group.tokens, first : first + count] += own[group.kept]


class HeadLoss(torch.autograd.Function):
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
        for at in range(0, len(hidden), ROWS):
            part, wanted = hidden[at : at + ROWS], targets[at : at + ROWS, None]
            logits = (part @ used.T).float()
            top = logits.logsumexp(-1, keepdim=True)
            total += (top - logits.gather(1, wanted)).sum()
            if of_hidden is None:
                continue
            share = logits.sub_(top).exp_()
            share.scatter_add_(1, wanted, torch.full_like(top, -1.0))
            share = share.to(hidden.dtype)
            of_hidden[at : at + ROWS] = share @ used
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
