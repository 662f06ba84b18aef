"""Causal attention within each row of a layout, rotary positions included, with its gradient.

Tokens lie one behind the other as [tokens, heads + 2 x kv_heads, size]: the queries of all heads,
then keys, then values. A group's queries, keys and values are each picked out of that by one list
of places, already in the order in which the matrix products want them, and what comes of all groups
goes back by one list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from local_backend.packed.layout import PackedLayout, RowGroup


@dataclass(frozen=True)
class GroupIndices:
    """A group's places among all vectors of the tokens, [tokens x (heads + 2 x kv_heads)].

    `queries` [rows x heads x longest]; `pairs` [2 x rows x kv_heads x (before + longest)], keys and
    then values; `outward` [rows x heads x longest] among [tokens x heads], where gradients come
    from. `bias` [queries of a key head, keys] is added to the scores; None for long rows.
    """

    rows: int
    prefix_length: int
    query_indices: torch.Tensor
    key_value_indices: torch.Tensor
    output_indices: torch.Tensor
    bias: torch.Tensor | None


@dataclass(frozen=True)
class GatherIndices:
    """A layout's groups for a model of so many heads.

    `out` [tokens x heads]: where each result lies among those of all parts. `back` [tokens x
    (heads + 2 x kv_heads)]: where each gradient lies among those of all parts, the last of which is
    nothing.
    """

    heads: int
    kv_heads: int
    groups: tuple[GroupIndices, ...]
    output_order: torch.Tensor
    grad_order: torch.Tensor


def build_gather_indices(
    layout: PackedLayout, heads: int, kv_heads: int, dtype: torch.dtype
) -> GatherIndices:
    """Where everything lies; made once for all of a model's layers."""
    width, tokens, device = heads + 2 * kv_heads, len(layout.ids), layout.ids.device
    parts = tuple(_group_indices(group, heads, kv_heads, dtype) for group in layout.row_groups)
    out = torch.zeros(tokens * heads, dtype=torch.long, device=device)
    nothing = sum(len(part.query_indices) + len(part.key_value_indices) for part in parts)
    back = torch.full((tokens * width,), nothing, device=device)
    first_out = first_back = 0

    def fill(target: torch.Tensor, at: torch.Tensor, first: int, kept: torch.Tensor) -> None:
        target.scatter_(0, at, first + kept)

    for part in parts:
        queries = torch.arange(len(part.query_indices), device=device)
        fill(out, part.output_indices, first_out, queries)
        fill(back, part.query_indices, first_back, queries)
        first_out, first_back = first_out + len(queries), first_back + len(queries)
        # What comes before the rows is not theirs: its gradients are added up apart.
        pairs = torch.arange(len(part.key_value_indices), device=device).view(
            2, part.rows, kv_heads, -1
        )
        own = pairs[..., part.prefix_length :].flatten()
        fill(
            back,
            part.key_value_indices.view(pairs.shape)[..., part.prefix_length :].flatten(),
            first_back,
            own,
        )
        first_back += len(part.key_value_indices)
    return GatherIndices(heads, kv_heads, parts, out, back)


def _group_indices(group: RowGroup, heads: int, kv_heads: int, dtype: torch.dtype) -> GroupIndices:
    width, index = heads + 2 * kv_heads, group.token_indices
    rows, device = len(index), index.device
    ahead = torch.arange(group.prefix_length, device=device).expand(rows, -1)
    seen = torch.cat([ahead, index], 1)[:, None]
    head, key = (torch.arange(n, device=device)[:, None] for n in (heads, kv_heads))
    keys = seen * width + heads + key
    bias = group.bias
    if bias is not None:
        bias = bias.to(dtype).repeat(heads // kv_heads, 1)
    return GroupIndices(
        rows,
        group.prefix_length,
        (index[:, None] * width + head).flatten(),
        torch.stack([keys, keys + kv_heads]).flatten(),
        (index[:, None] * heads + head).flatten(),
        bias,
    )


class PackedAttention(torch.autograd.Function):
    """`qkv` [tokens, (heads + 2 x kv_heads) x size] -> [tokens, heads x size]."""

    @staticmethod
    def forward(
        ctx: Any, qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, where: GatherIndices
    ) -> torch.Tensor:
        """Keeps everything as turned, and the weights of short rows."""
        tokens, turning = len(qkv), where.heads + where.kv_heads
        turned = apply_rotary(qkv.view(tokens, turning + where.kv_heads, -1), turning, cos, sin)
        outs, kept = [], []
        for part in where.groups:
            out, weights = attend(*gather_qkv(turned, part, where), part)
            outs.append(out.flatten(0, -2))
            kept.append(weights)
        ctx.save_for_backward(turned, cos, sin, *(w for w in kept if w is not None))
        ctx.where = where
        return torch.cat(outs).index_select(0, where.output_order).view(tokens, -1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        """Of qkv."""
        turned, cos, sin, *kept = ctx.saved_tensors
        where, size = ctx.where, turned.shape[-1]
        outward, weights = gradient.reshape(-1, size), iter(kept)
        found, shared = [], []
        for part in where.groups:
            q, k, v = gather_qkv(turned, part, where)
            own = outward.index_select(0, part.output_indices).view(q.shape)
            past = None if part.bias is None else next(weights)
            of_q, *of_pairs = attend_backward(q, k, v, past, own, part.bias)
            found += [x.reshape(-1, size) for x in (of_q, *of_pairs)]
            if part.prefix_length:
                shared.append([shared_prefix_grad(x, part, where) for x in of_pairs])
        found.append(outward.new_zeros(1, size))
        back = torch.cat(found).index_select(0, where.grad_order).view(turned.shape)
        for pair in shared:
            both = torch.cat(pair, 1)
            back[: len(both), where.heads :] += both
        turning = where.heads + where.kv_heads
        return apply_rotary(back, turning, cos, -sin).view(gradient.shape[0], -1), None, None, None


def apply_rotary(
    x: torch.Tensor, turning: int, cos: torch.Tensor, sin: torch.Tensor
) -> torch.Tensor:
    """Rotary positions (Su et al. 2021) on the first `turning` vectors of each token; a copy.

    `x` [tokens, vectors, size]; `cos` and `sin` [tokens, 1, size / 2], float32.
    """
    turned, half = torch.empty_like(x), x.shape[-1] // 2
    a, b = x[:, :turning].float().split(half, -1)
    turned[:, turning:] = x[:, turning:]
    turned[:, :turning, :half] = (a * cos).addcmul_(b, sin, value=-1)
    turned[:, :turning, half:] = (b * cos).addcmul_(a, sin)
    return turned


def gather_qkv(
    turned: torch.Tensor, part: GroupIndices, where: GatherIndices
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values of a part, [rows x kv_heads, vectors, size]."""
    flat, batch = turned.view(-1, turned.shape[-1]), part.rows * where.kv_heads
    q = flat.index_select(0, part.query_indices).view(batch, -1, flat.shape[-1])
    k, v = flat.index_select(0, part.key_value_indices).view(2, batch, -1, flat.shape[-1])
    return q, k, v


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, part: GroupIndices
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The mixed values, and the weights where they are kept."""
    if part.bias is None:
        return sdpa_attention(q, k, v), None
    scores = torch.baddbmm(part.bias, q, k.transpose(1, 2), alpha=q.shape[-1] ** -0.5)
    weights = scores.softmax(-1)
    return weights @ v, weights


def sdpa_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Rows whose scores are never all there (flash attention), nothing before them.

    In float32 on a CPU, where bfloat16 is slower backwards.
    """
    dtype = torch.float32 if q.device.type == "cpu" else q.dtype
    longest = k.shape[1]
    out = F.scaled_dot_product_attention(
        q.view(len(q), -1, longest, q.shape[-1]).to(dtype),
        *(x[:, None].to(dtype) for x in (k, v)),
        is_causal=True,
        enable_gqa=True,
    )
    return out.to(q.dtype).reshape(q.shape)


def attend_backward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    weights: torch.Tensor | None,
    gradient: torch.Tensor,
    bias: torch.Tensor | None,
) -> tuple[torch.Tensor, ...]:
    """Of queries, keys and values."""
    if weights is None:
        with torch.enable_grad():
            leaves = [x.detach().requires_grad_() for x in (q, k, v)]
            return torch.autograd.grad(sdpa_attention(*leaves), leaves, gradient)
    of_v = weights.transpose(1, 2) @ gradient
    of_weights = gradient @ v.transpose(1, 2)
    of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype)
    scale = {"beta": 0, "alpha": q.shape[-1] ** -0.5}
    of_q = torch.baddbmm(q, of_scores, k, **scale)
    return of_q, torch.baddbmm(k, of_scores.transpose(1, 2), q, **scale), of_v


def shared_prefix_grad(
    gradient: torch.Tensor, part: GroupIndices, where: GatherIndices
) -> torch.Tensor:
    """Gradients of what comes before all rows, added up: [before, kv_heads, size]."""
    rows = gradient.view(part.rows, where.kv_heads, -1, gradient.shape[-1])
    return rows[:, :, : part.prefix_length].sum(0).transpose(0, 1)
