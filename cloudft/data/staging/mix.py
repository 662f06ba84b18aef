"""Mix general data into the training set: how much, which records, and where among the others."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from numpy import bool_, integer, uint64
    from numpy.typing import NDArray

T = TypeVar("T")


def general_record_counts(records: int, shares: Sequence[float]) -> list[int]:
    """Return how many general records make each share of a set that has `records` others.

    Works for characters as well, which stand for tokens.
    """
    own = 1 - sum(shares)
    return [max(1, round(records * share / own)) for share in shares]


def count_records_for_size(
    keys: NDArray[uint64], sizes: NDArray[integer], target_size: int
) -> int | None:
    """Return how many records, lowest keys first, are nearest to `target_size` characters in sum.

    None when all of them have less than that by more than the largest one.
    """
    import numpy as np

    through = np.cumsum(sizes[np.argsort(keys, kind="stable")], dtype=np.int64)
    if not len(through) or through[-1] + int(sizes.max()) < target_size:
        return None
    return 1 + int(np.argmin(np.abs(through - target_size)))


def select_lowest_keys(keys: NDArray[uint64], count: int) -> NDArray[bool_]:
    """Return a mark for each record that is taken: the `count` lowest keys, first of equal ones."""
    import numpy as np

    marks = np.zeros(len(keys), np.bool_)
    marks[np.argsort(keys, kind="stable")[:count]] = True
    return marks


def interleave(streams: Iterable[tuple[int, Iterator[T]]]) -> Iterator[T]:
    """Yield several streams as one, each spread evenly over the whole and in its own order.

    A stream is given with its length. A trainer that does not shuffle sees all of them this way.
    """
    positioned = [_positioned(length, i, items) for i, (length, items) in enumerate(streams)]
    for _, _, item in heapq.merge(*positioned, key=lambda entry: entry[:2]):
        yield item


def _positioned(length: int, stream: int, items: Iterator[T]) -> Iterator[tuple[float, int, T]]:
    for index, item in enumerate(items):
        yield (index + 0.5) / length, stream, item
