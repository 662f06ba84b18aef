"""Keys and values of conversations that have ended: the next turn of one begins with them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from local_backend.serving.key_values import KeyValues
from local_backend.serving.sequences import Decoded

MIN_SHARED = 16
"""A shorter beginning is not worth a copy."""
KEPT_BYTES = 128 * 2**20
"""Memory of all kept conversations."""


@dataclass(frozen=True, eq=False)
class KeptPrefix:
    """Tokens with their keys and values [layers, 2, kv_heads, tokens, size]."""

    adapter: int
    prompt_tokens: int
    tokens: list[int]
    stored: torch.Tensor


class KeptPrefixes:
    """The conversations that ended last, as many as there is memory for."""

    def __init__(self, most_bytes: int) -> None:
        self.prefixes: deque[KeptPrefix] = deque()
        self._most_bytes = most_bytes
        self._bytes = 0

    def keep(self, sequence: Decoded, values: KeyValues) -> None:
        """Keep a sequence that ends, in place of those that it continues."""
        tokens = sequence.tokens
        if len(tokens) < MIN_SHARED or 4 * len(tokens) * values.bytes_per_token > self._most_bytes:
            return
        for kept in list(self.prefixes):
            same = kept.adapter == sequence.adapter
            shared = common_prefix(kept.tokens, tokens) if same else 0
            if shared == len(tokens):
                return
            if shared == len(kept.tokens):
                self._drop(kept)
        stored = values.copy_out(sequence.place, len(tokens))
        self.prefixes.append(
            KeptPrefix(sequence.adapter, sequence.prompt_tokens, list(tokens), stored)
        )
        self._bytes += stored.nbytes
        while self._bytes > self._most_bytes:
            self._drop(self.prefixes[0])

    def _drop(self, kept: KeptPrefix) -> None:
        self.prefixes.remove(kept)
        self._bytes -= kept.stored.nbytes


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Return how many tokens two lists begin with alike.

    >>> common_prefix([1, 2, 3, 4], [1, 2, 3, 5, 6])
    3
    """
    low, high = 0, min(len(left), len(right))
    if left[:high] == right[:high]:
        return high
    while high - low > 1:  # the first `low` are alike, the first `high` are not
        middle = (low + high) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle
    return low
