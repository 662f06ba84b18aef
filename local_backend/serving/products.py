"""Matrix products of the engine: weights in the layout that this machine multiplies fastest.

A row of the input may have an adapter of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F

from local_backend.models.lora import LoraLinear
from local_backend.serving.adapter_set import NO_ADAPTER


class Product:
    """x W^T + b with a weight that does not change, [rows, in] -> [rows, out].

    On a CPU the weight is kept in oneDNN's own layout as well: with few rows, PyTorch's product
    brings it into that layout every time, or (float32) calls a library that is slow there.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        self.bias = bias
        self._weight: torch.Tensor | None = weight
        self._reordered = _reorder(weight)
        if self._reordered is not None:
            self._weight = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the product."""
        if self._weight is not None:
            return F.linear(x, self._weight, self.bias)
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self._reordered, self.bias, "none", [], ""
        )
        return out


def _reorder(weight: torch.Tensor) -> torch.Tensor | None:
    """Return the weight in oneDNN's layout; None where oneDNN does not multiply it."""
    usable = weight.device.type == "cpu" and torch.backends.mkldnn.is_available()
    if not usable or not weight.numel() or not _multiplies(weight.dtype):
        return None
    reordered: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
    return reordered


@functools.cache
def _multiplies(dtype: torch.dtype) -> bool:
    """Return whether this build of PyTorch has oneDNN's products of a format for this CPU.

    It is tried on a small weight, so that what a large one fails at (memory) is an error.
    """
    if dtype not in (torch.float32, torch.bfloat16):
        return False
    weight = torch.zeros((16, 16), dtype=dtype)
    try:
        reordered = torch.ops.mkldnn._reorder_linear_weight(weight)
        torch.ops.mkldnn._linear_pointwise(weight[:1], reordered, None, "none", [], "")
    except (AttributeError, RuntimeError):  # no such operators, or not for this CPU
        return False
    return True


class Update(NamedTuple):
    """The update of an adapter to a product: x down^T up^T, with `down` [ranks, in]."""

    down: torch.Tensor
    up: torch.Tensor


@dataclass
class RowAdapters:
    """Which adapter each row of a step has: `active` are those that occur, in order.

    `shares` [rows, active] is 1 where a row has that adapter; None where all rows have the one
    that is active.
    """

    active: tuple[int, ...] = ()
    shares: torch.Tensor | None = None
    rows: list[tuple[int, torch.Tensor]] = field(default_factory=list)
    """The rows of each adapter, those without one among them (NO_ADAPTER)."""

    def choose(self, numbers: Sequence[int], device: torch.device, dtype: torch.dtype) -> None:
        """Set the adapters of the rows of the next step."""
        self.active = tuple(sorted({number for number in numbers if number != NO_ADAPTER}))
        self.shares, self.rows = None, []
        if len(set(numbers)) > 1:
            each = torch.tensor(numbers, device=device)
            columns = torch.tensor(self.active, device=device)
            self.shares = (each[:, None] == columns).to(dtype)
            self.rows = [
                (number, (each == number).nonzero()[:, 0]) for number in sorted(set(numbers))
            ]


class AdaptedProduct:
    """A product, and the update that each row's adapter adds to it."""

    def __init__(
        self, product: Product, updates: Mapping[int, Update], adapters: RowAdapters
    ) -> None:
        self._product, self._updates, self._adapters = product, updates, adapters
        self._active: tuple[int, ...] = ()
        self._joined: tuple[Update, torch.Tensor] | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the outputs of all layers, concatenated: [rows, in] -> [rows, all outs]."""
        out = self._product(x)
        if not self._adapters.active or not self._updates:
            return out
        joined = self._join(self._adapters.active)
        if joined is None:
            return out
        update, owners = joined
        inner = F.linear(x, update.down)
        if self._adapters.shares is not None:
            inner = inner * self._adapters.shares.index_select(1, owners)
        return out.addmm_(inner, update.up.T)

    def _join(self, active: tuple[int, ...]) -> tuple[Update, torch.Tensor] | None:
        """Return the updates of these adapters side by side, and the column of each rank's.

        Those of the last step are kept: of n adapters there are 2^n sets.
        """
        if active != self._active:
            found = [(at, self._updates[n]) for at, n in enumerate(active) if n in self._updates]
            self._active, self._joined = active, None
            if found:
                updates = [update for _, update in found]
                joined = updates[0]
                if len(found) > 1:
                    joined = Update(
                        torch.cat([update.down for update in updates]),
                        torch.cat([update.up for update in updates], 1),
                    )
                owners = [at for at, update in found for _ in range(len(update.down))]
                self._joined = joined, torch.tensor(owners, device=joined.down.device)
        return self._joined


def join_updates(
    layers: Sequence[LoraLinear | None], heights: Sequence[int], dtype: torch.dtype
) -> Update | None:
    """Return the update to layers of `heights` that read one input; None if none is adapted."""
    adapted = [layer for layer in layers if layer is not None]
    if not adapted:
        return None
    down = torch.cat([layer.lora_A.detach() * layer.scaling for layer in adapted])
    ranks = sum(len(layer.lora_A) for layer in adapted)
    up = torch.zeros((sum(heights), ranks), device=down.device)
    row = column = 0
    for layer, height in zip(layers, heights, strict=True):
        if layer is not None:
            rank = len(layer.lora_A)
            up[row : row + height, column : column + rank] = layer.lora_B.detach()
            column += rank
        row += height
    return Update(down.to(dtype), up.to(dtype))
