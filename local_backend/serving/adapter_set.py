"""Adapters of several jobs on one base model, of which each is in the model at a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from local_backend.models import lora
from local_backend.models.lora import LoraLayer, LoraLinear
from local_backend.models.lora_experts import LoraExperts

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NO_ADAPTER = -1
"""The number of the base model, beside those of its adapters."""


class AdapterSet:
    """The adapters of a model, numbered from 0. The model has none of them after `use(-1)`."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self._bases: dict[str, nn.Module] = {}
        self._layers: list[dict[str, LoraLayer]] = []
        self._used = NO_ADAPTER
        model.requires_grad_(False)
        model.eval()

    def __len__(self) -> int:
        return len(self._layers)

    def load(self, folder: Path) -> int:
        """Load the adapter in `folder`, and return its number. Raise TrainerError."""
        self.use(NO_ADAPTER)
        lora.load_adapter(self.model, folder)
        number = self.adopt()
        self.use(NO_ADAPTER)
        return number

    def adopt(self) -> int:
        """Return a number for the adapter that is in the model, and leave it there."""
        layers: dict[str, LoraLayer] = {}
        for name, layer in lora.lora_layers(self.model):
            if not any(name.startswith(f"{outer}.") for outer in layers):
                layers[name] = layer
        self._layers.append(layers)
        self._bases |= {name: _unwrap(layer) for name, layer in layers.items()}
        self._used = len(self._layers) - 1
        self.model.requires_grad_(False)
        self.model.eval()
        return self._used

    def use(self, number: int) -> None:
        """Put the layers of one adapter into the model, in place of those of another one."""
        if number == self._used:
            return
        if self._used != NO_ADAPTER:
            for name in self._layers[self._used]:
                lora.replace_module(self.model, name, self._bases[name])
        if number != NO_ADAPTER:
            for name, layer in self._layers[number].items():
                lora.replace_module(self.model, name, layer)
        self._used = number

    def linear_layers(self, number: int) -> dict[nn.Module, LoraLinear]:
        """Return the adapted linear layers of one adapter by the layers that they adapt."""
        return {
            layer.base_layer: layer
            for layer in self._layers[number].values()
            if isinstance(layer, LoraLinear)
        }

    def adapts_within(self, number: int, name: str) -> bool:
        """Return whether an adapter changes the module called `name`, or one inside of it."""
        return any(f"{at}.".startswith(f"{name}.") for at in self._layers[number])


def _unwrap(layer: nn.Module) -> nn.Module:
    while isinstance(layer, LoraLinear | LoraExperts):
        layer = layer.base_layer
    return layer
