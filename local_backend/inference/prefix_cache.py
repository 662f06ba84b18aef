"""What many prompts begin with goes through the model once.

The records of one task often share a long instruction: its keys and values are computed for one
row, and copied for all.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Any

import torch

from local_backend.models.load_model import LoadedModel

MIN_SHARED_PREFIX = 8
"""A shorter beginning is not worth a pass of its own."""


def shared_prefix_length(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with, leaving each one at least; 0 when it is not worth it."""
    if len(rows) < 2:
        return 0
    pairs = zip(min(rows), max(rows), strict=False)  # whatever is between them begins as they do
    alike = itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)
    count = min(sum(1 for _ in alike), min(map(len, rows)) - 1)
    return count if count >= MIN_SHARED_PREFIX else 0


class PrefixCache:
    """The keys and values of some tokens, for as many rows as are asked for."""

    def __init__(self, loaded: LoadedModel, ids: Sequence[int]) -> None:
        self.length = len(ids)
        self._cache: Any = None
        if ids:
            with torch.inference_mode():
                row = torch.tensor([list(ids)], device=loaded.model.device)
                self._cache = loaded.model(
                    input_ids=row, use_cache=True, logits_to_keep=1
                ).past_key_values

    def repeat(self, count: int) -> Any:
        """A cache of its own for `count` rows; None when there is no prefix."""
        if self._cache is None:
            return None
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(count)
        return cache
