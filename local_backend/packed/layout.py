"""Pack records one after another without padding, and index them for attention.

Attention never crosses from one record into another, and each record's positions start at 0. A
prefix that all records share (usually an instruction) goes through the model once. Causal attention
means that later tokens can't change it, so every record sees the same keys and values, and their
gradients add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from local_backend.data.examples import Example, flatten_rows
from local_backend.device import copy_to_device

MIN_SHARED_PREFIX = 8
"""A shorter shared prefix is not worth a row of its own."""
MAX_DENSE_ROW = 384
"""Rows up to this many tokens use batched matrix products for attention; longer ones use SDPA."""
PAD_MULTIPLE = 32
"""The number of tokens is padded to a multiple of this, by at least one: oneDNN compiles and caches
code for each new shape.
"""
MIN_LENGTH_RATIO = 0.75
"""A row joins a group if it is at least this long, relative to the group's longest."""


@dataclass(frozen=True)
class RowGroup:
    """Rows of similar length. Each attends to the layout's first `prefix_length` tokens too.

    `token_indices` [rows, longest] has the index of each token; a gap at a row's end points to a
    padding token. `bias` [longest, prefix_length + longest] is -inf where a key comes after the
    query and 0 elsewhere; None for long rows.
    """

    token_indices: torch.Tensor
    prefix_length: int
    bias: torch.Tensor | None


@dataclass(frozen=True)
class PackedLayout:
    """Indices of one packed micro-batch.

    `ids` and `positions` [tokens], and `sequence_lengths` [tokens]: the length of each token's
    sequence (of the longest for those that sequences share). `logit_positions` [loss tokens] are
    the positions that predict `targets` [loss tokens]. The last token, and some before it, are
    padding that belongs to no row: nothing attends to them, and their gradient is 0.
    `example_order` has for each row, in the order of the targets, the index of its example;
    `loss_counts` its number of targets.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    sequence_lengths: torch.Tensor
    logit_positions: torch.Tensor
    targets: torch.Tensor
    row_groups: tuple[RowGroup, ...]
    example_order: tuple[int, ...]
    loss_counts: tuple[int, ...]


def shared_prefix_length(examples: Sequence[Example]) -> int:
    """Return how many tokens all examples share at the start; 0 if sharing is not worth it.

    Tokens with loss are never shared. Each example keeps the token that predicts its first loss
    token, and everything after it.
    """
    if len(examples) < 2:
        return 0
    limit = min(int(np.argmax(e.loss_mask)) for e in examples) - 1
    if limit < MIN_SHARED_PREFIX:
        return 0
    heads = np.stack([e.ids[:limit] for e in examples])
    is_equal = (heads == heads[0]).all(axis=0)
    count = limit if is_equal.all() else int(np.argmin(is_equal))
    # SDPA can't attend to a prefix of other rows, and dense attention over long rows would copy the
    # keys of the prefix into each of them. So long rows share nothing.
    longest = max(len(e.ids) for e in examples) - count
    return count if count >= MIN_SHARED_PREFIX and longest <= MAX_DENSE_ROW else 0


def count_packed_tokens(examples: Sequence[Example]) -> int:
    """Return how many tokens go through the model."""
    rows = flatten_rows(examples)
    prefix = shared_prefix_length(rows)
    return sum(len(row.ids) for row in rows) - prefix * (len(rows) - 1)


def pack_examples(
    examples: Sequence[Example], device: torch.device, *, share_prefix: bool = True
) -> PackedLayout:
    """Return the layout of `examples` on `device`."""
    prefix = shared_prefix_length(examples) if share_prefix else 0
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].ids), reverse=True)
    rows = [examples[i] for i in order]
    # The prefix comes first, once, and then of each row what follows it.
    parts = [rows[0].ids[:prefix], *(e.ids[prefix:] for e in rows)]
    starts = np.cumsum([0, *(len(part) for part in parts)])
    ids = np.concatenate(parts).astype(np.int64)
    positions = np.concatenate([np.arange(prefix), *(np.arange(prefix, len(e.ids)) for e in rows)])
    row_lengths = [len(e.ids) for e in rows]
    lengths = np.repeat([row_lengths[0], *row_lengths], [len(part) for part in parts])
    loss_indices = [np.flatnonzero(e.loss_mask) for e in rows]
    # Token i of a row is predicted at position i - 1, which is never in the shared prefix.
    logit_positions = np.concatenate(
        [at - 1 - prefix + start for at, start in zip(loss_indices, starts[1:], strict=False)]
    )
    targets = np.concatenate([e.ids[at] for e, at in zip(rows, loss_indices, strict=True)])
    spans = [(int(s), len(p)) for s, p in zip(starts[1:-1], parts[1:], strict=True)]
    padding = (0, PAD_MULTIPLE - len(ids) % PAD_MULTIPLE)
    ids, positions, lengths = (np.pad(x, padding) for x in (ids, positions, lengths))

    def to_device(array: np.ndarray) -> torch.Tensor:
        return copy_to_device(torch.from_numpy(np.ascontiguousarray(array)), device)

    def make_group(rows: Sequence[tuple[int, int]], prefix_length: int) -> RowGroup:
        index = _row_indices(rows, gap=len(ids) - 1)
        longest = index.shape[1]
        bias = to_device(_causal_bias(longest, prefix_length)) if longest <= MAX_DENSE_ROW else None
        return RowGroup(to_device(index), prefix_length, bias)

    groups = [make_group(rows, prefix) for rows in _group_by_length(spans)]
    if prefix:
        groups.insert(0, make_group([(0, prefix)], 0))
    return PackedLayout(
        to_device(ids),
        to_device(positions),
        to_device(lengths),
        to_device(logit_positions),
        to_device(targets),
        tuple(groups),
        tuple(order),
        tuple(len(at) for at in loss_indices),
    )


def _group_by_length(spans: Sequence[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Group rows of similar length. `spans` must have the longest first."""
    groups: list[list[tuple[int, int]]] = []
    for span in spans:
        if not groups or span[1] < MIN_LENGTH_RATIO * groups[-1][0][1]:
            groups.append([])
        groups[-1].append(span)
    return groups


def _row_indices(spans: Sequence[tuple[int, int]], gap: int) -> np.ndarray:
    """Return the token indices of rows given as (start, length), the longest first."""
    starts, lengths = (np.array(x)[:, None] for x in zip(*spans, strict=True))
    columns = np.arange(spans[0][1])
    return np.where(columns < lengths, starts + columns, gap)


def _causal_bias(longest: int, prefix_length: int) -> np.ndarray:
    """Return what is added to the scores of a row: 0, or -inf for keys after the query."""
    is_later = np.triu(np.ones((longest, prefix_length + longest), dtype=bool), prefix_length + 1)
    return np.where(is_later, -np.inf, 0.0).astype(np.float32)
