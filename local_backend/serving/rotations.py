"""Rotate queries and keys by the angles of their positions, in few operations."""

from __future__ import annotations

from functools import cached_property

import torch

from local_backend.packed import AttentionKind, apply_rotary


class Angles:
    """cos and sin of the positions of a step, [tokens, 1, rotations] each, for all layers alike."""

    def __init__(self, cos: torch.Tensor, sin: torch.Tensor) -> None:
        self.cos, self.sin = cos, sin

    @cached_property
    def whole(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what multiplies a vector and its exchanged halves: [tokens, 1, size] each."""
        return torch.cat([self.cos, self.cos], -1), torch.cat([-self.sin, self.sin], -1)


def rotate(
    vectors: torch.Tensor, kind: AttentionKind, angles: Angles
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return queries, keys and values of `vectors` [tokens, all vectors, size], rotated.

    The numbers are those of `apply_rotary`, which copies part by part.
    """
    sizes = [kind.heads, kind.kv_heads, kind.kv_heads]
    half, size = angles.cos.shape[-1], vectors.shape[-1]
    if kind.interleaved or 2 * half != size:
        q, k, v = apply_rotary(vectors, kind, angles.cos, angles.sin).split(sizes, 1)
        return q, k, v
    cos, sin = angles.whole
    count = kind.heads + kind.kv_heads
    turned = vectors[:, :count].float()
    turned = (turned * cos).addcmul_(turned.roll(half, -1), sin).to(vectors.dtype)
    return turned[:, : kind.heads], turned[:, kind.heads :], vectors[:, count:]
