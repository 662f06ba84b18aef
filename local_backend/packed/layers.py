"""Describe how each layer of a model attends: its window, its scale, its positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from local_backend.packed.attention import AttentionKind
from local_backend.packed.families import ModelFamily

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SLIDING = "sliding_attention"
"""transformers' name for a layer with a window, in `layer_types`."""
NO_ROTARY = "none"
"""The rotary tables of layers without positions."""


@dataclass(frozen=True)
class AttentionLayer:
    """What differs between the layers of a model; equal layers share their inputs.

    `rotary` names the rotary tables: a layer type, or one name for all.
    """

    kind: AttentionKind
    rotary: str


def describe_layers(model: PreTrainedModel, family: ModelFamily) -> list[AttentionLayer]:
    """Return how each block of `model` attends, first to last."""
    config = model.config
    softcap = getattr(config, family.attention_softcap) if family.attention_softcap else None
    types = getattr(config, "layer_types", None)
    window: int | None = getattr(config, "sliding_window", None)
    layers = []
    for number, block in enumerate(family.find_blocks(model)):
        attention = block.get_submodule(family.attention)
        layer_type = str(types[number]) if types else None
        # Without types of layers, a window is for all of them.
        has_window = layer_type in (None, SLIDING)
        kind = AttentionKind(
            heads=int(config.num_attention_heads),
            kv_heads=int(config.num_key_value_heads),
            scale=float(attention.scaling),  # type: ignore[arg-type]  # a number of transformers
            window=window if has_window else None,
            softcap=float(softcap) if softcap else None,
            interleaved=family.interleaved_rotary,
        )
        rotary = layer_type if family.rotary_by_layer_type and layer_type else "all"
        flag = family.rotary_flag
        is_unrotated = flag is not None and not getattr(attention, flag)
        if is_unrotated or (family.rotary_in_windows_only and window and kind.window is None):
            rotary = NO_ROTARY
        layers.append(AttentionLayer(kind, rotary))
    return layers
