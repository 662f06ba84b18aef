"""Say why the packed path can't compute a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from local_backend.models.lora import LoraLinear
from local_backend.packed.families import FAMILIES, ModelFamily, base_linear, find_family
from local_backend.packed.gated import ACTIVATIONS

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def unsupported_reason(model: PreTrainedModel) -> str | None:
    """Return why the packed path can't compute this model; None if it can."""
    family = find_family(model)
    if family is None:
        model_type = getattr(model.config, "model_type", None)
        return f"it knows the families {', '.join(FAMILIES)}, not {model_type}"
    return _unsupported_setting(model, family) or _unsupported_layer(model, family)


def _unsupported_setting(model: PreTrainedModel, family: ModelFamily) -> str | None:
    activation = getattr(model.config, family.activation, None)
    if not family.own_mlp and activation not in ACTIVATIONS:
        return f"it computes the activations {', '.join(ACTIVATIONS)}, not {activation}"
    for name in family.must_be_off:
        if getattr(model.config, name, None):
            return f"it has no {name}, which this model uses"
    return None


def _unsupported_layer(model: PreTrainedModel, family: ModelFamily) -> str | None:
    head = model.get_output_embeddings()
    if isinstance(head, LoraLinear):
        return "it has no adapter on the output layer"
    if getattr(head, "bias", None) is not None:
        return "it has no bias in the output layer"
    for block in family.find_blocks(model):
        if family.sinks and block.get_parameter(family.sinks).requires_grad:
            return "it does not train the sinks of attention"
        for layer in family.linear_layers(block):
            # By exact type: 4-bit and other quantized layers are subclasses of nn.Linear.
            base = base_linear(layer)
            if type(layer) not in (nn.Linear, LoraLinear) or type(base) is not nn.Linear:
                return f"it computes plain linear layers, not {type(base).__name__}"
    return None
