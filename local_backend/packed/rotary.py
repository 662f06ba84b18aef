"""Angles of rotary positions, as the model's own module computes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from local_backend.packed.layers import NO_ROTARY, AttentionLayer

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class RotaryTables:
    """Makes cos and sin of the angles at positions, with whatever scaling a configuration has."""

    def __init__(self, module: nn.Module, config: PreTrainedConfig, layout: str) -> None:
        self.module, self.layout = module, layout
        rope = getattr(config, "rope_parameters", None) or {}
        self.long_above: int | None = None
        """Sequences above this length have angles of their own (longrope: Phi-3 and Phi-4)."""
        if rope.get("rope_type") == "longrope":
            original = rope.get("original_max_position_embeddings")
            self.long_above = int(original or config.max_position_embeddings)

    def have_equal_angles(self, lengths: Sequence[int]) -> bool:
        """Return True if sequences of these lengths have the same angles at the same positions."""
        limit = self.long_above
        return limit is None or min(lengths) > limit or max(lengths) <= limit

    def tables(
        self,
        layers: Iterable[AttentionLayer],
        positions: torch.Tensor,
        lengths: torch.Tensor,
    ) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Return cos and sin by the name that layers have for them, [tokens, 1, rotations] each.

        `positions` [tokens] are those in each token's sequence, `lengths` [tokens] the sequences'.
        """
        names = {layer.rotary for layer in layers}
        return {name: self._table(name, positions, lengths) for name in sorted(names)}

    def _table(
        self, name: str, positions: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if name == NO_ROTARY:
            nothing = positions.new_empty((len(positions), 1, 0), dtype=torch.float32)
            return nothing, nothing
        arguments = () if name == "all" else (name,)
        if self.long_above is None:
            return self._call(positions, arguments)
        # The module looks at the longest position alone, so that a sequence would have other
        # angles beside a longer one than alone.
        is_long = lengths > self.long_above
        short = self._call(positions.where(~is_long, 0), arguments)
        if not bool(is_long.any()):
            return short
        long = self._call(positions.where(is_long, self.long_above), arguments)
        at = is_long[:, None, None]
        return long[0].where(at, short[0]), long[1].where(at, short[1])

    def _call(
        self, positions: torch.Tensor, arguments: tuple[str, ...]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        shape = torch.empty((1, 1), device=positions.device)
        cos, sin = self.module(shape, positions[None], *arguments)
        # Each angle is there twice, for both dimensions that are rotated; apply_rotary needs it
        # once.
        width = cos.shape[-1]
        kept = {
            "halves": slice(0, width // 2),
            "pairs": slice(0, width, 2),
            "once": slice(0, width),
        }[self.layout]
        return cos[0, :, None, kept].contiguous(), sin[0, :, None, kept].contiguous()
