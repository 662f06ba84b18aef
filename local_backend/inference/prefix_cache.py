"""Compute the key-value cache of a shared prompt prefix once.

The records of one task often share a long instruction. Its keys and values are computed for one row
and copied for all.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from local_backend.models.load_model import LoadedModel

if TYPE_CHECKING:
    from transformers import DynamicCache

MIN_SHARED_PREFIX = 8
"""A shorter prefix is not worth a pass of its own."""


def shared_prefix_length(rows: Sequence[Sequence[int]]) -> int:
    """Return how many tokens all rows share at the start; 0 if sharing is not worth it.

    At least one token is left to each row.
    """
    if len(rows) < 2:
        return 0
    # In lexicographic order, every row lies between the first and the last, so what these two
    # share all rows share.
    tuples = [tuple(row) for row in rows]
    pairs = zip(min(tuples), max(tuples), strict=False)
    equal = itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)
    count = min(sum(1 for _ in equal), min(map(len, rows)) - 1)
    return count if count >= MIN_SHARED_PREFIX else 0


class PrefixCache:
    """The keys and values of some tokens, for any number of rows."""

    def __init__(self, loaded: LoadedModel, ids: Sequence[int]) -> None:
        self.length = len(ids)
        self._cache: DynamicCache | None = None
        if ids:
            with torch.inference_mode():
                row = torch.tensor([list(ids)], device=loaded.model.device)
                self._cache = loaded.model(
                    input_ids=row, use_cache=True, logits_to_keep=1
                ).past_key_values

    def repeat(self, count: int) -> DynamicCache | None:
        """Return a separate cache for `count` rows; None if there is no prefix."""
        if self._cache is None:
            return None
        # A copy, because generation appends to the cache it is given.
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(count)
        return cache
