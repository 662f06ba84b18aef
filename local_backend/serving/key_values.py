"""Keys and values of the answers under way, in memory that grows and shrinks with them.

Sequences of similar length lie in one block of memory, so that attention reads all of them in one
product without copies, and no sequence takes more than twice its length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

SMALLEST_BLOCK = 128
"""Tokens of the shortest sequences' places."""


@dataclass(eq=False)
class Place:
    """Where a sequence's keys and values are: a place of a block. `length` are its tokens there."""

    block: Block
    number: int
    length: int = 0


@dataclass(eq=False)
class Block:
    """Places for sequences of up to `capacity` tokens.

    `memory` [layers, 2, places, kv_heads, capacity, size] has keys (0) and values (1). The first
    `len(places)` are taken.
    """

    capacity: int
    memory: torch.Tensor
    places: list[Place] = field(default_factory=list)


class KeyValues:
    """The blocks of memory, by capacity."""

    def __init__(
        self,
        layers: int,
        kv_heads: int,
        size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._shape = (layers, kv_heads, size)
        self._dtype, self._device = dtype, device
        self.blocks: dict[int, Block] = {}

    @property
    def tokens(self) -> int:
        """Return how many tokens have their keys and values here."""
        return sum(place.length for block in self.blocks.values() for place in block.places)

    @property
    def bytes_per_token(self) -> int:
        """Return the memory of one token's keys and values."""
        layers, kv_heads, size = self._shape
        return 2 * layers * kv_heads * size * self._dtype.itemsize

    def add(self, tokens: int) -> Place:
        """Return a place for a sequence of so many tokens, which has none of them yet."""
        block = self._block_for(tokens)
        count = len(block.places)
        if count == block.memory.shape[2]:
            larger = self._memory(block.capacity, max(1, 2 * count))
            larger[:, :, :count] = block.memory
            block.memory = larger
        place = Place(block, count)
        block.places.append(place)
        return place

    def make_room(self, place: Place, tokens: int) -> None:
        """Move a sequence where it can have `tokens` tokens, if it can't where it is."""
        if tokens <= place.block.capacity:
            return
        moved = self.add(tokens)
        self._copy(place, moved, place.length)
        old_block, old_number = place.block, place.number
        place.block, place.number = moved.block, moved.number
        place.block.places[place.number] = place
        self._close_gap(old_block, old_number)

    def remove(self, place: Place) -> None:
        """Give a place back."""
        self._close_gap(place.block, place.number)

    def copy_out(self, place: Place, length: int) -> torch.Tensor:
        """Return a copy of the first tokens' part: [layers, 2, kv_heads, length, size]."""
        return place.block.memory[:, :, place.number, :, :length].clone()

    def copy_in(self, place: Place, stored: torch.Tensor, length: int) -> None:
        """Begin a sequence with the first `length` tokens of what `copy_out` returned."""
        place.block.memory[:, :, place.number, :, :length] = stored[:, :, :, :length]
        place.length = length

    def copy_prefix(self, source: Place, target: Place, length: int) -> None:
        """Begin a sequence with the first `length` tokens of another one."""
        self._copy(source, target, length)
        target.length = length

    def _copy(self, source: Place, target: Place, length: int) -> None:
        part = source.block.memory[:, :, source.number, :, :length]
        target.block.memory[:, :, target.number, :, :length] = part

    def _close_gap(self, block: Block, number: int) -> None:
        """Move the last sequence of a block to a place that is free now."""
        last = block.places.pop()
        source = Place(block, len(block.places))
        if source.number != number:
            self._copy(source, Place(block, number), last.length)
            last.number = number
            block.places[number] = last
        if not block.places:
            del self.blocks[block.capacity]
        elif len(block.places) * 4 <= block.memory.shape[2]:
            block.memory = block.memory[:, :, : block.memory.shape[2] // 2].clone()

    def _block_for(self, tokens: int) -> Block:
        capacity = SMALLEST_BLOCK
        while capacity < tokens:
            capacity *= 2
        if capacity not in self.blocks:
            self.blocks[capacity] = Block(capacity, self._memory(capacity, 1))
        return self.blocks[capacity]

    def _memory(self, capacity: int, places: int) -> torch.Tensor:
        layers, kv_heads, size = self._shape
        # Zeros: what lies behind a sequence's end is masked, and 0 x NaN would not be.
        return torch.zeros(
            (layers, 2, places, kv_heads, capacity, size), dtype=self._dtype, device=self._device
        )


def groups_by_block(places: Sequence[Place]) -> dict[int, list[int]]:
    """Return the indices of places by the capacity of their blocks, in the order of the places."""
    groups: dict[int, list[int]] = {}
    for index, place in enumerate(places):
        groups.setdefault(place.block.capacity, []).append(index)
    for indices in groups.values():
        indices.sort(key=lambda index: places[index].number)
    return dict(sorted(groups.items()))
