"""Attention of the engine: new tokens of several sequences, each over its own keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from local_backend.packed import AttentionKind, softmax_with_sinks
from local_backend.serving.key_values import Block, Place


@dataclass(frozen=True)
class SingleTokens:
    """The newest tokens of sequences in one block.

    They are the tokens `first` to `last` of the step, in the order of their places `numbers`. These
    are all of the places 0 to `places` - 1, or (not `is_dense`) some of them. `positions` [tokens]:
    where they are in their sequences, the longest of which has `longest` tokens.
    """

    block: Block
    first: int
    last: int
    places: int
    numbers: torch.Tensor
    positions: torch.Tensor
    longest: int
    is_dense: bool
    is_even: bool
    """Whether all of these sequences are of one length."""

    def bias(self, window: int | None, dtype: torch.dtype) -> torch.Tensor | None:
        """Return what is added to scores [places, 1, longest]: -inf for what is not seen.

        None: all is seen.
        """
        if self.is_dense and self.is_even and (window is None or window >= self.longest):
            return None
        device = self.positions.device
        newest = self.positions[:, None]
        if not self.is_dense:
            # The places in between attend to their first key, and nobody reads what comes out.
            newest = newest.new_zeros((self.places, 1)).index_copy_(0, self.numbers, newest)
        at = torch.arange(self.longest, device=device)
        hidden = at > newest
        if window is not None:
            hidden = hidden | (at <= newest - window)
        bias = torch.zeros(hidden.shape, dtype=dtype, device=device)
        return bias.masked_fill_(hidden, -torch.inf)[:, None]


@dataclass(frozen=True)
class PromptPart:
    """Consecutive tokens of a prompt: `first` to `last` of the step, from `start` of the prompt."""

    place: Place
    first: int
    last: int
    start: int

    def mask(self, window: int | None, device: torch.device) -> torch.Tensor | None:
        """Return which keys each token sees [tokens, keys]; None: all up to itself, from 0 on."""
        count = self.last - self.first
        if not self.start and (window is None or window >= count):
            return None
        query = torch.arange(self.start, self.start + count, device=device)[:, None]
        key = torch.arange(self.start + count, device=device)
        seen = key <= query
        return seen if window is None else seen & (key > query - window)


def attend_singles(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    bias: torch.Tensor | None,
    kind: AttentionKind,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Return the attention of one query a sequence: [sequences, heads x size].

    `q` [sequences, heads, size]; `keys` and `values` [sequences, kv_heads, longest, size]; `bias`
    [sequences, 1, longest] or None.
    """
    count, heads, size = q.shape
    # The heads that share a key are its queries: in bfloat16 five times as fast as `enable_gqa`.
    by_key = q.reshape(count, kind.kv_heads, -1, size)
    if kind.softcap is None and sinks is None:
        mask = None if bias is None else bias[:, None]
        out = F.scaled_dot_product_attention(by_key, keys, values, attn_mask=mask, scale=kind.scale)
        return out.reshape(count, heads * size)
    scores = _scores(by_key, keys, kind)
    if bias is not None:
        scores += bias[:, None]
    if sinks is None:
        weights = scores.softmax(-1)
    else:
        of_query = sinks.view(1, kind.kv_heads, -1).expand(scores.shape[:-1])
        weights = softmax_with_sinks(scores, of_query)
    return (weights @ values).reshape(count, heads * size)


def attend_prompt(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    kind: AttentionKind,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Return the attention of a part of a prompt: [tokens, heads x size].

    `q` [tokens, heads, size]; `keys` and `values` [kv_heads, keys, size]; `mask` [tokens, keys].
    """
    count, heads, size = q.shape
    by_head = q.transpose(0, 1)
    if kind.softcap is None and sinks is None:
        out = F.scaled_dot_product_attention(
            by_head[None],
            keys[None],
            values[None],
            attn_mask=mask,
            is_causal=mask is None,
            scale=kind.scale,
            enable_gqa=True,
        )[0]
        return out.transpose(0, 1).reshape(count, heads * size)
    if mask is None:
        mask = torch.ones((count, keys.shape[1]), dtype=torch.bool, device=q.device).tril_()
    by_key = by_head.reshape(kind.kv_heads, -1, count, size)
    scores = _scores(by_key, keys[:, None], kind).masked_fill_(~mask, -torch.inf)
    if sinks is None:
        weights = scores.softmax(-1)
    else:
        of_query = sinks.view(kind.kv_heads, -1, 1).expand(scores.shape[:-1])
        weights = softmax_with_sinks(scores, of_query)
    mixed = weights @ values[:, None]
    return mixed.view(heads, count, size).transpose(0, 1).reshape(count, heads * size)


def _scores(q: torch.Tensor, keys: torch.Tensor, kind: AttentionKind) -> torch.Tensor:
    scores = (q @ keys.transpose(-1, -2)).mul_(kind.scale)
    if kind.softcap is not None:
        scores = scores.div_(kind.softcap).tanh_().mul_(kind.softcap)
    return scores


def single_tokens(
    places: Sequence[Place], indices: Sequence[int], first: int, device: torch.device
) -> SingleTokens:
    """Return the newest tokens of some of the `places`, all of one block, in order of number."""
    block = places[indices[0]].block
    numbers = [places[index].number for index in indices]
    positions = [places[index].length for index in indices]
    count = numbers[-1] + 1
    return SingleTokens(
        block,
        first,
        first + len(indices),
        count,
        torch.tensor(numbers, device=device),
        torch.tensor(positions, device=device),
        max(positions) + 1,
        is_dense=count == len(indices),
        is_even=min(positions) == max(positions),
    )
