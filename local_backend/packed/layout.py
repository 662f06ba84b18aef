"""Records one behind the other, without padding: what goes through the model at once, as indices.

Attention never crosses from one record into another, and each record's positions begin anew. What
all records begin with (an instruction that they share) goes through once: what comes behind it can
not change it, so every record sees the same keys and values, and their gradients add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from local_backend.data.batches import Example

MIN_SHARED_PREFIX = 8
"""A shorter common beginning is not worth a row of its own."""
MAX_DENSE_ROW = 384
"""Rows up to so many tokens are attended to as batched matrix products; longer ones by SDPA."""
PAD_MULTIPLE = 32
"""Tokens are filled up to a multiple of this, by one at least: oneDNN builds and keeps code for
each new shape.
"""
MIN_LENGTH_RATIO = 0.75
"""A row joins a group when it is at least so long, measured by the group's longest."""


@dataclass(frozen=True)
class RowGroup:
    """Rows of like length, `before` tokens at the beginning of everything in front of each.

    `index` [rows, longest] says where each token lies; in the gap at a row's end it is a token of
    no row. `bias` [longest, before + longest] is -inf where a key comes after the query, 0
    elsewhere; None for long rows.
    """

    token_indices: torch.Tensor
    prefix_length: int
    bias: torch.Tensor | None


@dataclass(frozen=True)
class PackedLayout:
    """`ids` and `positions` [tokens]; `predicting` [learned]: the places whose next token,

    `targets` [learned], is learned. The last token, and some before it, are filling, of no row:
    nobody sees them, and their gradient is 0.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    logit_positions: torch.Tensor
    targets: torch.Tensor
    row_groups: tuple[RowGroup, ...]


def shared_prefix_length(examples: Sequence[Example]) -> int:
    """How many tokens all examples begin with and none learns; 0 when it is not worth it.

    Each keeps the token that predicts the first one it learns, and everything behind it.
    """
    if len(examples) < 2:
        return 0
    room = min(int(np.argmax(e.loss_mask)) for e in examples) - 1
    if room < MIN_SHARED_PREFIX:
        return 0
    heads = np.stack([e.ids[:room] for e in examples])
    same = (heads == heads[0]).all(axis=0)
    count = room if same.all() else int(np.argmin(same))
    # Beside long rows of scores the shared keys would be laid out once more for each row.
    longest = max(len(e.ids) for e in examples) - count
    return count if count >= MIN_SHARED_PREFIX and longest <= MAX_DENSE_ROW else 0


def count_packed_tokens(examples: Sequence[Example]) -> int:
    """How many tokens go through the model."""
    common = shared_prefix_length(examples)
    return sum(len(e.ids) for e in examples) - common * (len(examples) - 1)


def pack_examples(examples: Sequence[Example], device: torch.device) -> PackedLayout:
    """The layout of `examples`, on `device`."""
    common = shared_prefix_length(examples)
    rows = sorted(examples, key=lambda e: len(e.ids), reverse=True)
    parts = [rows[0].ids[:common], *(e.ids[common:] for e in rows)]
    starts = np.cumsum([0, *(len(p) for p in parts)])
    ids = np.concatenate(parts).astype(np.int64)
    positions = np.concatenate([np.arange(common), *(np.arange(common, len(e.ids)) for e in rows)])
    learned = [np.flatnonzero(e.loss_mask) for e in rows]
    predicting = np.concatenate(
        [at - 1 - common + start for at, start in zip(learned, starts[1:], strict=False)]
    )
    targets = np.concatenate([e.ids[at] for e, at in zip(rows, learned, strict=True)])
    spans = [(int(s), len(p)) for s, p in zip(starts[1:-1], parts[1:], strict=True)]
    filling = (0, PAD_MULTIPLE - len(ids) % PAD_MULTIPLE)
    ids, positions = (np.pad(x, filling) for x in (ids, positions))

    def on(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    def group(rows: Sequence[tuple[int, int]], before: int) -> RowGroup:
        index = _row_indices(rows, gap=len(ids) - 1)
        longest = index.shape[1]
        bias = on(_causal_bias(longest, before)) if longest <= MAX_DENSE_ROW else None
        return RowGroup(on(index), before, bias)

    groups = [group(rows, common) for rows in _group_by_length(spans)]
    if common:
        groups.insert(0, group([(0, common)], 0))
    return PackedLayout(*(on(x) for x in (ids, positions, predicting, targets)), tuple(groups))


def _group_by_length(spans: Sequence[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Rows, longest first, in groups of like length."""
    groups: list[list[tuple[int, int]]] = []
    for span in spans:
        if not groups or span[1] < MIN_LENGTH_RATIO * groups[-1][0][1]:
            groups.append([])
        groups[-1].append(span)
    return groups


def _row_indices(spans: Sequence[tuple[int, int]], gap: int) -> np.ndarray:
    """The places of rows that begin at `start` and have `length` tokens, the longest first."""
    starts, lengths = (np.array(x)[:, None] for x in zip(*spans, strict=True))
    columns = np.arange(spans[0][1])
    return np.where(columns < lengths, starts + columns, gap)


def _causal_bias(longest: int, before: int) -> np.ndarray:
    """What is added to the scores of a row: nothing, or minus infinity for what comes later."""
    later = np.triu(np.ones((longest, before + longest), dtype=bool), before + 1)
    return np.where(later, -np.inf, 0.0).astype(np.float32)
