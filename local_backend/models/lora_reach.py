"""Measure what adapters reach: which share of a model's weights, and what is left out and why.

Counted are weights of two or more dimensions; embeddings and the output layer are apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from local_backend.models.linear_layers import is_linear, linear_shape
from local_backend.models.target_modules import ROUTER, Selection, is_router

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NOT_SELECTED = "not selected"
MAX_NAMED = 8


@dataclass(frozen=True)
class LeftOut:
    """Weights of one kind without an adapter. `share` is of the counted weights."""

    name: str
    reason: str
    share: float


@dataclass(frozen=True)
class AdapterReach:
    """How many layers and stacked parameters get an adapter, and which share of the weights.

    `not_merged` are the kinds of adapted layers whose updates can't be merged.
    """

    layers: int
    share: float
    left_out: tuple[LeftOut, ...]
    not_merged: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as the reply of `local_backend.models.target_modules`."""
        return {
            "layers": self.layers,
            "share": self.share,
            "leftOut": [asdict(kind) for kind in self.left_out],
            "notMerged": list(self.not_merged),
            "text": self.describe(),
        }

    def describe(self) -> str:
        """Return one line: the share, and what is left out by its reason."""
        text = f"{_percent(self.share)} of the weights are under an adapter ({self.layers} layers)"
        if self.not_merged:
            names = _join_names(self.not_merged)
            text = f"{text}; can't be merged, as they share weights: {names}"
        if not self.left_out:
            return text
        reasons: dict[str, list[str]] = {}
        for kind in self.left_out:
            reasons.setdefault(kind.reason, []).append(kind.name)
        parts = [f"{_join_names(names)} ({reason})" for reason, names in reasons.items()]
        return f"{text}; left out: {'; '.join(parts)}"


def _percent(share: float) -> str:
    """Return a share as a percentage that says 100 for the whole alone."""
    return f"{math.floor(share * 1000) / 10:g} %"


def _join_names(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


def measure_reach(model: PreTrainedModel, selection: Selection) -> AdapterReach:
    """Return what the selected adapters reach in a model that has none yet."""
    targets = set(selection.targets)
    sizes: dict[tuple[str, str], int] = {}
    adapted = 0
    for name, module, size in _counted_weights(model):
        if name in targets:
            adapted += size
            continue
        reason = selection.left_out.get(name) or _reason(name, module)
        kind = _kind(name)
        sizes[kind, reason] = sizes.get((kind, reason), 0) + size
    total = adapted + sum(sizes.values())
    left_out = tuple(
        LeftOut(kind, reason, size / total)
        for (kind, reason), size in sorted(sizes.items(), key=lambda item: -item[1])
    )
    share = adapted / total if total else 0.0
    return AdapterReach(len(targets), share, left_out, tuple(kinds_of(selection.shared)))


def _counted_weights(model: PreTrainedModel) -> Iterator[tuple[str, nn.Module, int]]:
    """Yield each counted weight once: the name of its target, its module, its size.

    The target of a linear layer's weight is the layer; that of any other is the parameter.
    """
    head, seen = model.get_output_embeddings(), set()
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) or module is head:
            continue
        for parameter, weight in module.named_parameters(recurse=False):
            # Experts' biases are stacked in two dimensions.
            if weight.ndim < 2 or parameter.endswith("bias") or id(weight) in seen:
                continue
            seen.add(id(weight))
            is_layer = is_linear(module) and parameter == "weight"
            target = name if is_layer else f"{name}.{parameter}"
            # Of the layer, because two weights of 4 bits are stored as one number.
            yield target, module, math.prod(linear_shape(module)) if is_layer else weight.numel()


def _reason(name: str, module: nn.Module) -> str:
    if is_router(name):
        return ROUTER
    return NOT_SELECTED if is_linear(module) else f"no linear layer: {type(module).__name__}"


def kinds_of(names: Iterable[str]) -> list[str]:
    """Return the kinds of layers or parameters with these names."""
    return sorted({_kind(name) for name in names})


def _kind(name: str) -> str:
    """Return a name without the numbers of layers and what is before the first of them."""
    parts = name.split(".")
    first = next((at for at, part in enumerate(parts) if part.isdigit()), -1)
    return ".".join(part for part in parts[first + 1 :] if not part.isdigit())
