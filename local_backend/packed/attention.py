"""Causal attention within each row of a packed layout, with rotary positions and its gradient.

Tokens are laid out as [tokens, heads + 2 x kv_heads, size]: the queries of all heads, then keys,
then values. For each group, one list of indices gathers queries, keys and values in the order in
which the matrix products need them, and one list scatters the results of all groups back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F

from local_backend.packed.layout import PackedLayout, RowGroup
from local_backend.packed.ops import Context

SOFTCAP_CHUNK = 512
"""Queries of a long row whose capped scores exist at the same time."""


@dataclass(frozen=True)
class AttentionKind:
    """What a layer's attention computes: softmax(cap(scale x q k) + mask) v.

    `window`: a query sees that many keys, itself included; None for all before it. `softcap`:
    scores become softcap x tanh(score / softcap). `interleaved`: positions rotate neighboring
    dimensions of a vector instead of those half a rotation apart.
    """

    heads: int
    kv_heads: int
    scale: float
    window: int | None = None
    softcap: float | None = None
    interleaved: bool = False

    def without_window(self) -> AttentionKind:
        """Return the kind of a layer that sees all keys before a query."""
        return replace(self, window=None)


@dataclass(frozen=True)
class GroupIndices:
    """A group's indices among all vectors of the tokens, [tokens x (heads + 2 x kv_heads)].

    `query_indices` [rows x heads x longest]; `key_value_indices` [2 x rows x kv_heads x
    (prefix_length + longest)], keys and then values; `output_indices` [rows x heads x longest]
    among [tokens x heads], where output gradients are read. `bias` [queries of a key head, keys] is
    added to the scores; None for long rows.
    """

    rows: int
    prefix_length: int
    query_indices: torch.Tensor
    key_value_indices: torch.Tensor
    output_indices: torch.Tensor
    bias: torch.Tensor | None


@dataclass(frozen=True)
class GatherIndices:
    """A layout's groups, indexed for layers of one kind.

    `output_order` [tokens x heads]: where each output is among those of all groups. `grad_order`
    [tokens x (heads + 2 x kv_heads)]: where each gradient is among those of all groups; the last of
    these is a zero.
    """

    kind: AttentionKind
    groups: tuple[GroupIndices, ...]
    output_order: torch.Tensor
    grad_order: torch.Tensor

    def with_window(self, window: int | None) -> GatherIndices:
        """Return the same indices for layers with another window. `self` must have none."""
        groups = tuple(_mask_by_window(group, window, self.kind) for group in self.groups)
        return replace(self, kind=replace(self.kind, window=window), groups=groups)


def _mask_by_window(group: GroupIndices, window: int | None, kind: AttentionKind) -> GroupIndices:
    """Return the group with -inf for keys that are `window` tokens or more before the query."""
    bias = group.bias
    if bias is None or window is None or window >= bias.shape[1]:
        return group
    key = torch.arange(bias.shape[1], device=bias.device)
    # A row's first query follows the shared prefix, whose keys come first.
    query = torch.arange(bias.shape[1] - group.prefix_length, device=bias.device)
    query = (query + group.prefix_length).repeat(kind.heads // kind.kv_heads)[:, None]
    return replace(group, bias=bias.masked_fill(key <= query - window, -torch.inf))


def build_gather_indices(
    layout: PackedLayout, kind: AttentionKind, dtype: torch.dtype
) -> GatherIndices:
    """Return the indices of a layout, which all of a model's layers share."""
    heads, kv_heads = kind.heads, kind.kv_heads
    width, tokens, device = heads + 2 * kv_heads, len(layout.ids), layout.ids.device
    groups = tuple(_group_indices(group, heads, kv_heads, dtype) for group in layout.row_groups)
    output_order = torch.zeros(tokens * heads, dtype=torch.long, device=device)
    # Vectors that no row owns (padding tokens) take their gradient from the zero at the end.
    zero = sum(len(group.query_indices) + len(group.key_value_indices) for group in groups)
    grad_order = torch.full((tokens * width,), zero, device=device)
    first_output = first_grad = 0
    for group in groups:
        queries = torch.arange(len(group.query_indices), device=device)
        output_order.scatter_(0, group.output_indices, first_output + queries)
        grad_order.scatter_(0, group.query_indices, first_grad + queries)
        first_output, first_grad = first_output + len(queries), first_grad + len(queries)
        # The keys and values of the shared prefix appear in every row, but one index can name only
        # one of them. So only a row's own keys and values are entered here, and the gradients of
        # the prefix are summed over the rows in PackedAttention.backward.
        key_values = torch.arange(len(group.key_value_indices), device=device)
        key_values = key_values.view(2, group.rows, kv_heads, -1)
        targets = group.key_value_indices.view(key_values.shape)[..., group.prefix_length :]
        own = key_values[..., group.prefix_length :].flatten()
        grad_order.scatter_(0, targets.flatten(), first_grad + own)
        first_grad += len(group.key_value_indices)
    indices = GatherIndices(kind.without_window(), groups, output_order, grad_order)
    return indices if kind.window is None else indices.with_window(kind.window)


def _group_indices(group: RowGroup, heads: int, kv_heads: int, dtype: torch.dtype) -> GroupIndices:
    width, index = heads + 2 * kv_heads, group.token_indices
    rows, device = len(index), index.device
    prefix = torch.arange(group.prefix_length, device=device).expand(rows, -1)
    attended_tokens = torch.cat([prefix, index], 1)[:, None]
    head, kv_head = (torch.arange(n, device=device)[:, None] for n in (heads, kv_heads))
    key_indices = attended_tokens * width + heads + kv_head
    bias = group.bias
    if bias is not None:
        # Grouped-query attention: the query heads of one key head are stacked below each other, so
        # that one matrix product serves them all. Each needs the same causal bias.
        bias = bias.to(dtype).repeat(heads // kv_heads, 1)
    return GroupIndices(
        rows,
        group.prefix_length,
        (index[:, None] * width + head).flatten(),
        torch.stack([key_indices, key_indices + kv_heads]).flatten(),
        (index[:, None] * heads + head).flatten(),
        bias,
    )


class AttentionContext(Context, Protocol):
    """What PackedAttention keeps besides tensors."""

    indices: GatherIndices


class PackedAttention(torch.autograd.Function):
    """Attention over `qkv` [tokens, (heads + 2 x kv_heads) x size] -> [tokens, heads x size]."""

    @staticmethod
    def forward(
        ctx: AttentionContext,
        qkv: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        indices: GatherIndices,
    ) -> torch.Tensor:
        """Save the rotated vectors, and the attention weights of short rows."""
        tokens, kind = len(qkv), indices.kind
        vectors = qkv.view(tokens, kind.heads + 2 * kind.kv_heads, -1)
        rotated = apply_rotary(vectors, kind, cos, sin)
        outputs, weights = [], []
        for group in indices.groups:
            output, group_weights = attend(*gather_qkv(rotated, group, indices), group, kind)
            outputs.append(output.flatten(0, -2))
            weights.append(group_weights)
        # Only the rotated vectors are saved, once: gathering the rows again in backward is cheap,
        # and saving them for each group would hold the prefix once for each row.
        ctx.save_for_backward(rotated, cos, sin, *(w for w in weights if w is not None))
        ctx.indices = indices
        return torch.cat(outputs).index_select(0, indices.output_order).view(tokens, -1)

    @staticmethod
    def backward(
        ctx: AttentionContext, grad_output: torch.Tensor
    ) -> tuple[torch.Tensor, None, None, None]:
        """Return the gradient of qkv."""
        rotated, cos, sin, *saved_weights = ctx.saved_tensors
        indices, kind, size = ctx.indices, ctx.indices.kind, rotated.shape[-1]
        grad_vectors, weights = grad_output.reshape(-1, size), iter(saved_weights)
        grads: list[torch.Tensor] = []
        prefix_grads: list[torch.Tensor] = []
        for group in indices.groups:
            q, k, v = gather_qkv(rotated, group, indices)
            grad_rows = grad_vectors.index_select(0, group.output_indices).view(q.shape)
            group_weights = None if group.bias is None else next(weights)
            grad_q, grad_k, grad_v = attend_backward(q, k, v, group_weights, grad_rows, kind)
            grads += [grad.reshape(-1, size) for grad in (grad_q, grad_k, grad_v)]
            if group.prefix_length:
                shared = [shared_prefix_grad(grad, group, indices) for grad in (grad_k, grad_v)]
                prefix_grads.append(torch.cat(shared, 1))
        grads.append(grad_vectors.new_zeros(1, size))  # the zero that grad_order points to
        grad_qkv = torch.cat(grads).index_select(0, indices.grad_order).view(rotated.shape)
        for grad in prefix_grads:
            # The prefix is the layout's first tokens, and has a row of its own: the gradients of
            # the rows that attend to it are added to those of that row.
            grad_qkv[: len(grad), kind.heads :] += grad
        # A rotation is orthogonal, so its gradient is the rotation by the opposite angle. A factor
        # on cos and sin (yarn, longrope) applies to both.
        grad_qkv = apply_rotary(grad_qkv, kind, cos, -sin)
        return grad_qkv.view(len(rotated), -1), None, None, None


def apply_rotary(
    x: torch.Tensor, kind: AttentionKind, cos: torch.Tensor, sin: torch.Tensor
) -> torch.Tensor:
    """Return a copy with rotary positions (Su et al. 2021) on each token's queries and keys.

    `x` [tokens, vectors, size]; `cos` and `sin` [tokens, 1, rotations], float32. The first 2 x
    rotations dimensions of a vector are rotated.
    """
    half, vectors = cos.shape[-1], kind.heads + kind.kv_heads
    if not half:  # a layer without positions
        return x.contiguous()
    rotated = torch.empty_like(x)
    rotated[:, vectors:] = x[:, vectors:]
    if 2 * half < x.shape[-1]:
        rotated[:, :vectors, 2 * half :] = x[:, :vectors, 2 * half :]
    first, second = (part.float() for part in _rotated_halves(x[:, :vectors], half, kind))
    new_first, new_second = _rotated_halves(rotated[:, :vectors], half, kind)
    new_first.copy_((first * cos).addcmul_(second, sin, value=-1))
    new_second.copy_((second * cos).addcmul_(first, sin))
    return rotated


def _rotated_halves(
    x: torch.Tensor, half: int, kind: AttentionKind
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return views of the dimensions that are rotated with each other, [..., half] each."""
    if kind.interleaved:
        return x[..., : 2 * half : 2], x[..., 1 : 2 * half : 2]
    return x[..., :half], x[..., half : 2 * half]


def gather_qkv(
    rotated: torch.Tensor, group: GroupIndices, indices: GatherIndices
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return queries, keys and values of a group, [rows x kv_heads, vectors, size]."""
    flat, batch = rotated.view(-1, rotated.shape[-1]), group.rows * indices.kind.kv_heads
    q = flat.index_select(0, group.query_indices).view(batch, -1, flat.shape[-1])
    k, v = flat.index_select(0, group.key_value_indices).view(2, batch, -1, flat.shape[-1])
    return q, k, v


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, group: GroupIndices, kind: AttentionKind
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the attention output, and the attention weights if they are kept."""
    if group.bias is None:
        return attend_long(q, k, v, kind), None
    if kind.softcap is None:
        scores = torch.baddbmm(group.bias, q, k.transpose(1, 2), alpha=kind.scale)
    else:
        scores = capped_scores(q, k, kind.scale, kind.softcap).mul_(kind.softcap).add_(group.bias)
    weights = scores.softmax(-1)
    return weights @ v, weights


def capped_scores(q: torch.Tensor, k: torch.Tensor, scale: float, softcap: float) -> torch.Tensor:
    """Return tanh(scale x q k / softcap), which times the cap are the capped scores."""
    return (q @ k.transpose(1, 2)).mul_(scale / softcap).tanh_()


def attend_long(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, kind: AttentionKind
) -> torch.Tensor:
    """Return the attention of long rows, whose scores never exist as a whole.

    Long rows have no prefix. Computed in float32 on a CPU, where bfloat16 is slower backward.
    """
    dtype = torch.float32 if q.device.type == "cpu" else q.dtype
    longest = k.shape[1]
    by_head = q.view(len(q), -1, longest, q.shape[-1]).to(dtype)
    attention = sdpa_attention if kind.softcap is None else capped_attention
    out = attention(by_head, k[:, None].to(dtype), v[:, None].to(dtype), kind)
    return out.to(q.dtype).reshape(q.shape)


def sdpa_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, kind: AttentionKind
) -> torch.Tensor:
    """Return causal attention by PyTorch's own function (flash attention)."""
    longest, mask = k.shape[2], None
    if kind.window is not None and kind.window < longest:
        at = torch.arange(longest, device=q.device)
        distance = at[:, None] - at
        mask = (distance >= 0) & (distance < kind.window)
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, scale=kind.scale, enable_gqa=True
    )


def capped_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, kind: AttentionKind
) -> torch.Tensor:
    """Return causal attention with capped scores, some queries at a time."""
    assert kind.softcap is not None
    longest, parts = k.shape[2], []
    at = torch.arange(longest, device=q.device)
    for start in range(0, longest, SOFTCAP_CHUNK):
        end = min(start + SOFTCAP_CHUNK, longest)
        first = 0 if kind.window is None else max(0, start - kind.window + 1)
        scores = q[:, :, start:end] @ k[:, :, first:end].transpose(-1, -2)
        scores = kind.softcap * torch.tanh(scores * (kind.scale / kind.softcap))
        distance = at[start:end, None] - at[first:end]
        hidden = distance < 0
        if kind.window is not None:
            hidden = hidden | (distance >= kind.window)
        parts.append(scores.masked_fill(hidden, -torch.inf).softmax(-1) @ v[:, :, first:end])
    return torch.cat(parts, 2)


def attend_backward(  # what attention takes, with its result and its gradient
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    weights: torch.Tensor | None,
    grad_output: torch.Tensor,
    kind: AttentionKind,
) -> tuple[torch.Tensor, ...]:
    """Return the gradients of queries, keys and values.

    `weights` are the attention weights of short rows; None for long rows.
    """
    if weights is None:
        # Flash attention's own backward needs the state of its forward pass, which a custom
        # function cannot save. So the forward pass is run again, with autograd on.
        with torch.enable_grad():
            q, k, v = leaves = [x.detach().requires_grad_() for x in (q, k, v)]
            return torch.autograd.grad(attend_long(q, k, v, kind), leaves, grad_output)
    grad_v = weights.transpose(1, 2) @ grad_output
    grad_weights = grad_output @ v.transpose(1, 2)
    grad_scores = torch.ops.aten._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
    if kind.softcap is not None:  # the derivative of tanh
        capped = capped_scores(q, k, kind.scale, kind.softcap)
        grad_scores.mul_(1 - capped.square_())
    # baddbmm with beta=0 ignores its first argument: it is a product with a scale in one pass.
    grad_q = torch.baddbmm(q, grad_scores, k, beta=0, alpha=kind.scale)
    grad_k = torch.baddbmm(k, grad_scores.transpose(1, 2), q, beta=0, alpha=kind.scale)
    return grad_q, grad_k, grad_v


def shared_prefix_grad(
    grad: torch.Tensor, group: GroupIndices, indices: GatherIndices
) -> torch.Tensor:
    """Return the gradients of the shared prefix, summed over rows: [prefix, kv_heads, size]."""
    rows = grad.view(group.rows, indices.kind.kv_heads, -1, grad.shape[-1])
    return rows[:, :, : group.prefix_length].sum(0).transpose(0, 1)
