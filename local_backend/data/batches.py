"""Order examples into batches, and split batches into micro-batches that fit the memory.

The order of an epoch depends only on the seed and the epoch's number, so a resumed run needs no
saved order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from local_backend.data.examples import Example, flatten_rows, longest_first
from local_backend.device import copy_to_device

IGNORE_INDEX = -100
"""The label of a token without loss (torch.nn.functional.cross_entropy's default)."""


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Return the optimizer steps in one pass over `count` sequences; a batch may be partly full."""
    return -(-count // batch_size)


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """Return the indices of the epoch's examples in their order, [count].

    The same as `permutation(count)`, in half of its memory where 32 bits hold a number.
    """
    order = np.arange(count, dtype=np.int32 if count < 2**31 else np.int64)
    np.random.default_rng([seed, epoch]).shuffle(order)
    return order


def take_batch(order: np.ndarray, batch_size: int, number: int) -> list[int]:
    """Return the example indices of an epoch's batch of that number; the first one is 0."""
    indices: list[int] = order[number * batch_size : (number + 1) * batch_size].tolist()
    return indices


@dataclass(frozen=True)
class MicroBatchLimit:
    """How much goes through the model at once: at most that many sequences and that many tokens."""

    sequences: int
    tokens: int

    def halved(self) -> MicroBatchLimit | None:
        """Return half of it, or None if it is down to one sequence at a time."""
        if self.sequences <= 1:
            return None
        return MicroBatchLimit(self.sequences // 2, max(1, self.tokens // 2))


def count_padded_tokens(examples: Sequence[Example]) -> int:
    """Return how many tokens go through the model if all are padded to the longest."""
    rows = flatten_rows(examples)
    return len(rows) * max(len(row.ids) for row in rows)


def split_into_micro_batches(
    examples: Sequence[Example],
    limit: MicroBatchLimit,
    count_tokens: Callable[[Sequence[Example]], int] = count_padded_tokens,
) -> Iterator[list[Example]]:
    """Yield one batch in parts that fit `limit`, of similar length, longest first: least padding.

    The loss of a batch is a sum over its examples, so the split does not change it.
    """
    part: list[Example] = []
    rows = 0
    for example in (examples[at] for at in longest_first(examples).tolist()):
        rows += example.row_count
        is_full = rows > limit.sequences or count_tokens([*part, example]) > limit.tokens
        if part and is_full:
            yield part
            part, rows = [], example.row_count
        part.append(example)
    if part:
        yield part


def collate(
    examples: Sequence[Example], pad_id: int, device: torch.device
) -> dict[str, torch.Tensor]:
    """Return input_ids, attention_mask and labels of shape [sequences, longest], right-padded.

    `kept` [positions] are the columns from which at least one row predicts a loss token.
    """
    longest = max(len(e.ids) for e in examples)
    ids = np.full((len(examples), longest), pad_id, dtype=np.int64)
    mask = np.zeros((len(examples), longest), dtype=np.int64)
    labels = np.full((len(examples), longest), IGNORE_INDEX, dtype=np.int64)
    for row, example in enumerate(examples):
        size = len(example.ids)
        ids[row, :size] = example.ids
        mask[row, :size] = 1
        labels[row, :size][example.loss_mask] = example.ids[example.loss_mask]
    kept = np.flatnonzero((labels[:, 1:] != IGNORE_INDEX).any(axis=0))
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels, "kept": kept}
    return {name: copy_to_device(torch.from_numpy(array), device) for name, array in batch.items()}
