"""Causal attention within each row of a packed layout, with rotary positions and its gradient.

Tokens are laid out as [tokens, heads + 2 x kv_heads, size]: the queries of all heads, then keys,
then values. For each group, one list of indices gathers queries, keys and values in the order in
which the matrix products need them, and one list scatters the results of all groups back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F

from local_backend.packed.autograd import Context
from local_backend.packed.kernels import Rotation, kernels_for
from local_backend.packed.layout import PackedLayout, RowGroup

QUERY_CHUNK = 512
"""Queries of a long row whose scores exist at the same time, where PyTorch's attention can't be
used.
"""


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
    is_rotated: bool
    sinks: torch.Tensor | None


class PackedAttention(torch.autograd.Function):
    """Attention over `qkv` [tokens, (heads + 2 x kv_heads) x size] -> [tokens, heads x size].

    `sinks` [heads]: a frozen logit of each head that takes part in its softmax and has no value.
    """

    @staticmethod
    def forward(
        ctx: AttentionContext,
        qkv: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        indices: GatherIndices,
        sinks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Save the rotated vectors, and the attention weights of short rows."""
        tokens = len(qkv)
        rotated = RotatedVectors(qkv, cos, sin, indices.kind)
        outputs, weights = [], []
        for group in indices.groups:
            output, group_weights = attend(rotated.gather(group), group, indices.kind, sinks)
            outputs.append(output.flatten(0, -2))
            weights.append(group_weights)
        # Only the vectors are saved, once: gathering the rows again in backward is cheap, and
        # saving them for each group would hold the prefix once for each row.
        ctx.save_for_backward(rotated.saved, cos, sin, *(w for w in weights if w is not None))
        ctx.indices, ctx.is_rotated, ctx.sinks = indices, rotated.is_rotated, sinks
        return torch.cat(outputs).index_select(0, indices.output_order).view(tokens, -1)

    @staticmethod
    def backward(
        ctx: AttentionContext, grad_output: torch.Tensor
    ) -> tuple[torch.Tensor, None, None, None, None]:
        """Return the gradient of qkv."""
        saved, cos, sin, *saved_weights = ctx.saved_tensors
        indices, kind = ctx.indices, ctx.indices.kind
        rotated = RotatedVectors(saved, cos, sin, kind, is_rotated=ctx.is_rotated)
        size = rotated.size
        grad_vectors, weights = grad_output.reshape(-1, size), iter(saved_weights)
        grads: list[torch.Tensor] = []
        prefix_grads: list[torch.Tensor] = []
        for group in indices.groups:
            q, k, v = rotated.gather(group)
            grad_rows = grad_vectors.index_select(0, group.output_indices).view(q.shape)
            group_weights = None if group.bias is None else next(weights)
            grad_q, grad_k, grad_v = attend_backward(
                (q, k, v), group_weights, grad_rows, kind, ctx.sinks
            )
            grads += [grad.reshape(-1, size) for grad in (grad_q, grad_k, grad_v)]
            if group.prefix_length:
                shared = [shared_prefix_grad(grad, group, indices) for grad in (grad_k, grad_v)]
                prefix_grads.append(torch.cat(shared, 1))
        grads.append(grad_vectors.new_zeros(1, size))  # the zero that grad_order points to
        grad_qkv = rotated.backward(torch.cat(grads), indices.grad_order, prefix_grads)
        return grad_qkv, None, None, None, None


class RotatedVectors:
    """The vectors of `qkv` [tokens, width] with their rotary positions, gathered by group.

    `saved` is what backward makes this of again: with kernels `qkv` itself, because they rotate
    while they gather; otherwise (`is_rotated`) the rotated vectors [tokens, vectors, size].
    """

    def __init__(
        self,
        qkv: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        kind: AttentionKind,
        *,
        is_rotated: bool = False,
    ) -> None:
        self.kind, self.cos, self.sin = kind, cos, sin
        self.kernels = None if is_rotated or kind.interleaved else kernels_for(qkv)
        vectors = kind.heads + 2 * kind.kv_heads
        self.rotation = Rotation(cos, sin, vectors, kind.heads + kind.kv_heads)
        self.is_rotated = self.kernels is None
        if self.kernels is None and not is_rotated:
            qkv = apply_rotary(qkv.view(len(qkv), vectors, -1), kind, cos, sin)
        self.saved = qkv.contiguous()
        self.size = self.saved.numel() // (len(qkv) * vectors)

    def gather(self, group: GroupIndices) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return queries, keys and values of a group, [rows x kv_heads, vectors, size]."""
        flat, batch = self.saved.view(-1, self.size), group.rows * self.kind.kv_heads
        if self.kernels is None:
            q, key_values = (
                flat.index_select(0, at) for at in (group.query_indices, group.key_value_indices)
            )
        else:
            q, key_values = (
                self.kernels.rotate(flat, at, self.rotation)
                for at in (group.query_indices, group.key_value_indices)
            )
        k, v = key_values.view(2, batch, -1, self.size)
        return q.view(batch, -1, self.size), k, v

    def backward(
        self, grads: torch.Tensor, order: torch.Tensor, prefix_grads: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """Return the gradient of qkv [tokens, width], from those of all groups' vectors.

        `prefix_grads` are for each group what its rows add to the shared prefix.
        """
        # A rotation is orthogonal, so its gradient is the rotation by the opposite angle. A factor
        # on cos and sin (yarn, longrope) applies to both.
        if self.kernels is not None and not prefix_grads:
            turned = self.kernels.rotate(grads, order, self.rotation, backward=True)
            return turned.view(len(self.saved), -1)
        grad_qkv = grads.index_select(0, order).view(len(self.saved), -1, self.size)
        for grad in prefix_grads:
            # The prefix is the layout's first tokens, and has a row of its own: the gradients of
            # the rows that attend to it are added to those of that row.
            grad_qkv[: len(grad), self.kind.heads :] += grad
        if self.kernels is not None:
            flat = grad_qkv.view(-1, self.size)
            grad_qkv = self.kernels.rotate(flat, None, self.rotation, backward=True)
        else:
            grad_qkv = apply_rotary(grad_qkv, self.kind, self.cos, -self.sin)
        return grad_qkv.view(len(self.saved), -1)


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


def attend(
    vectors: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    group: GroupIndices,
    kind: AttentionKind,
    sinks: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the attention output of queries, keys and values, and its weights if they are kept."""
    q, k, v = vectors
    if group.bias is None:
        return attend_long(q, k, v, kind, sinks), None
    kernels = kernels_for(q)
    if kernels is not None and kind.softcap is None and sinks is None:
        weights = kernels.softmax_(q @ k.transpose(1, 2), group.bias, kind.scale)
        return weights @ v, weights
    if kind.softcap is None:
        scores = torch.baddbmm(group.bias, q, k.transpose(1, 2), alpha=kind.scale)
    else:
        scores = capped_scores(q, k, kind.scale, kind.softcap).mul_(kind.softcap).add_(group.bias)
    if sinks is None:
        weights = scores.softmax(-1)
    else:
        by_key_head = sinks.view(kind.kv_heads, -1)
        longest = scores.shape[1] // by_key_head.shape[1]
        by_query = by_key_head.repeat_interleave(longest, 1).repeat(group.rows, 1)
        weights = softmax_with_sinks(scores, by_query)
    return weights @ v, weights


def softmax_with_sinks(scores: torch.Tensor, sinks: torch.Tensor) -> torch.Tensor:
    """Return the weights of keys [..., queries, keys] beside a sink [..., queries] of each query.

    They sum to less than 1.
    """
    both = torch.cat([scores, sinks[..., None].to(scores.dtype)], -1).softmax(-1)
    return both[..., :-1]


def capped_scores(q: torch.Tensor, k: torch.Tensor, scale: float, softcap: float) -> torch.Tensor:
    """Return tanh(scale x q k / softcap), which times the cap are the capped scores."""
    return (q @ k.transpose(1, 2)).mul_(scale / softcap).tanh_()


def attend_long(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    kind: AttentionKind,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the attention of long rows, whose scores never exist as a whole.

    Long rows have no prefix. Computed in float32 on a CPU, where bfloat16 is slower backward.
    """
    dtype = torch.float32 if q.device.type == "cpu" else q.dtype
    longest = k.shape[1]
    by_head = q.view(len(q), -1, longest, q.shape[-1]).to(dtype)
    keys, values = k[:, None].to(dtype), v[:, None].to(dtype)
    if kind.softcap is None and sinks is None:
        out = sdpa_attention(by_head, keys, values, kind)
    else:
        if sinks is not None:  # of the heads that each row of the batch has
            sinks = sinks.view(kind.kv_heads, -1).repeat(len(q) // kind.kv_heads, 1)
        out = chunked_attention(by_head, keys, values, kind, sinks)
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


def chunked_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    kind: AttentionKind,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Return causal attention with capped scores or sinks [batch, heads], by chunks of queries."""
    longest, parts = k.shape[2], []
    at = torch.arange(longest, device=q.device)
    for start in range(0, longest, QUERY_CHUNK):
        end = min(start + QUERY_CHUNK, longest)
        first = 0 if kind.window is None else max(0, start - kind.window + 1)
        scores = q[:, :, start:end] @ k[:, :, first:end].transpose(-1, -2) * kind.scale
        if kind.softcap is not None:
            scores = kind.softcap * torch.tanh(scores / kind.softcap)
        distance = at[start:end, None] - at[first:end]
        hidden = distance < 0
        if kind.window is not None:
            hidden = hidden | (distance >= kind.window)
        scores = scores.masked_fill(hidden, -torch.inf)
        if sinks is None:
            weights = scores.softmax(-1)
        else:
            weights = softmax_with_sinks(scores, sinks[:, :, None].expand(scores.shape[:-1]))
        parts.append(weights @ v[:, :, first:end])
    return torch.cat(parts, 2)


def attend_backward(
    vectors: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    weights: torch.Tensor | None,
    grad_output: torch.Tensor,
    kind: AttentionKind,
    sinks: torch.Tensor | None,
) -> tuple[torch.Tensor, ...]:
    """Return the gradients of queries, keys and values.

    `weights` are the attention weights of short rows; None for long rows.
    """
    q, k, v = vectors
    if weights is None:
        # Flash attention's own backward needs the state of its forward pass, which a custom
        # function cannot save. So the forward pass is run again, with autograd on.
        with torch.enable_grad():
            q, k, v = leaves = [x.detach().requires_grad_() for x in (q, k, v)]
            return torch.autograd.grad(attend_long(q, k, v, kind, sinks), leaves, grad_output)
    grad_v = weights.transpose(1, 2) @ grad_output
    grad_weights = grad_output @ v.transpose(1, 2)
    kernels = kernels_for(q)
    if kernels is not None and kind.softcap is None:
        grad_scores = kernels.softmax_backward_(weights, grad_weights, kind.scale)
        return grad_scores @ k, grad_scores.transpose(1, 2) @ q, grad_v
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
