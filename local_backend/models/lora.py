"""LoRA adapters: attach, disable, merge, save and load them in PEFT's format.

LoRA (Hu et al. 2021) adds to a frozen layer's W the product of two thin matrices: W x + s B A x, s
= alpha / r. The layers here are plain modules, so a job needs no `import peft`, which takes
seconds. They are saved as PEFT's adapter folder, and PEFT's rules decide which layers get one.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from local_backend.errors import TrainerError
from local_backend.models.target_modules import (
    check_rank,
    find_target_layers,
    is_linear,
    linear_shape,
    match_target_layers,
    weight_of,
)
from local_backend.settings import LoraSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ADAPTER_WEIGHTS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
"""PEFT's names for the two files of an adapter."""
PEFT_PREFIX = "base_model.model."
"""What PEFT puts before the name of each layer."""
LORA_TENSORS = ("lora_A", "lora_B")
"""The two tensors of an adapted layer."""


class LoraLinear(nn.Module):
    """A frozen linear layer and its update. `lora_A` is [r, in], `lora_B` [out, r], float32."""

    def __init__(self, base: nn.Module, r: int, alpha: float, dropout: float) -> None:
        super().__init__()
        self.base_layer = base
        out, width = linear_shape(base)
        device = weight_of(base).device
        self.lora_A = nn.Parameter(torch.empty(r, width, device=device))
        self.lora_B = nn.Parameter(torch.zeros(out, r, device=device))
        # As PEFT initializes them: B is zero, so that training begins at the base model.
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.scaling = alpha / r
        self.dropout = dropout
        self.enabled = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the layer's output with its update, or without it while adapters are disabled."""
        out: torch.Tensor = self.base_layer(x)
        if not self.enabled:
            return out
        dropped = F.dropout(x, self.dropout, self.training).to(self.lora_A.dtype)
        # The update is computed in float32, the format of its weights, whatever x is in.
        update = F.linear(F.linear(dropped, self.lora_A), self.lora_B) * self.scaling
        return out + update.to(out.dtype)

    def merge(self) -> nn.Module:
        """Return the base layer with the update added to its weights, in double precision."""
        update = self.scaling * (self.lora_B.double() @ self.lora_A.double())
        weight = weight_of(self.base_layer)
        with torch.no_grad():
            # Conv1D stores its weight transposed.
            update = update if isinstance(self.base_layer, nn.Linear) else update.T
            weight.copy_((weight.double() + update).to(weight.dtype))
        return self.base_layer


def attach_adapters(model: PreTrainedModel, lora: LoraSettings, seed: int) -> None:
    """Attach fresh adapters, drawn from `seed`, to the selected layers; freeze the rest."""
    torch.manual_seed(seed)
    targets = find_target_layers(model, lora)
    check_rank(model, targets, lora)
    model.requires_grad_(False)
    for name in targets:
        replace_module(
            model, name, LoraLinear(model.get_submodule(name), lora.r, lora.alpha, lora.dropout)
        )


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Replace the submodule called `name` with `module`."""
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)


def lora_layers(model: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    """Yield every adapted layer with its name."""
    return ((n, m) for n, m in model.named_modules() if isinstance(m, LoraLinear))


@contextlib.contextmanager
def disable_adapters(model: nn.Module) -> Iterator[None]:
    """Turn the model into its base model within the context."""
    adapted = [layer for _, layer in lora_layers(model)]
    for layer in adapted:
        layer.enabled = False
    try:
        yield
    finally:
        for layer in adapted:
            layer.enabled = True


def merge_adapters(model: PreTrainedModel) -> None:
    """Add each update to the weights of its layer; no adapter is left.

    An adapted output layer that shares its weights with the embedding gets its own first: the
    update is the output's alone.
    """
    head = model.get_output_embeddings()
    if isinstance(head, LoraLinear) and model.config.get_text_config().tie_word_embeddings:
        shared = weight_of(head.base_layer)
        head.base_layer.weight = nn.Parameter(shared.detach().clone(), requires_grad=False)
        for config in (model.config, model.config.get_text_config()):
            config.tie_word_embeddings = False
    for name, layer in list(lora_layers(model)):
        replace_module(model, name, layer.merge())


def save_adapter(
    model: nn.Module,
    lora: LoraSettings,
    folder: Path,
    base: str,
    weights: Mapping[str, torch.Tensor],
) -> None:
    """Write the adapter in PEFT's format, so that PeftModel.from_pretrained reads it.

    `weights` are the adapter's, by their names in the model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors, is_transposed = {}, False
    for name, layer in lora_layers(model):
        is_transposed = is_transposed or not isinstance(layer.base_layer, nn.Linear)
        for part in LORA_TENSORS:
            tensors[f"{PEFT_PREFIX}{name}.{part}.weight"] = weights[f"{name}.{part}"]
    save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    targets = lora.target_modules
    if targets == "all-linear":
        # PEFT saves the names that it has resolved `all-linear` to, and so do we.
        targets = tuple(sorted({name.rsplit(".", 1)[-1] for name, _ in lora_layers(model)}))
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.r,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": targets if isinstance(targets, str) else list(targets),
        "bias": "none",
        "fan_in_fan_out": is_transposed,
        "inference_mode": True,
    }
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Attach the adapter in `folder` to the model.

    Raise TrainerError if it belongs to another model, or if a part of it is missing or left over.
    """
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / ADAPTER_WEIGHTS)
        lora = LoraSettings(config["r"], config["lora_alpha"], 0.0, config["target_modules"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise TrainerError(
            f"The adapter {folder} can't be read: {error}", fix="restore the job's artifacts."
        ) from error
    model.requires_grad_(False)
    for name in _find_adapter_layers(model, folder, tensors, lora):
        a, b = (tensors[f"{PEFT_PREFIX}{name}.{part}.weight"] for part in LORA_TENSORS)
        layer = LoraLinear(model.get_submodule(name), lora.r, lora.alpha, 0.0)
        for weight, value in ((layer.lora_A, a), (layer.lora_B, b)):
            if weight.shape != value.shape:
                raise TrainerError(
                    f"{folder} is another model's adapter: a tensor of {name} has the shape"
                    f" {list(value.shape)} instead of {list(weight.shape)}."
                )
            with torch.no_grad():
                weight.copy_(value)
        replace_module(model, name, layer)


def _find_adapter_layers(
    model: PreTrainedModel, folder: Path, tensors: Mapping[str, torch.Tensor], lora: LoraSettings
) -> list[str]:
    """Return the layers that the adapter is for, each with both of its tensors in `tensors`."""
    inside = {key.removeprefix(PEFT_PREFIX).rpartition(".lora_")[0] for key in tensors}
    linear = {name for name, module in model.named_modules() if is_linear(module)}
    unknown = sorted(inside - linear)
    if unknown:
        # A tensor that is not an adapter's has no layer in its name; then the tensor is named.
        missing_layer = unknown[0] or min(tensors)
        raise TrainerError(
            f"{folder} is another model's adapter: there is no {missing_layer} in this model."
        )
    head = model.get_output_embeddings()
    # An earlier version saved names that match nothing, so those are no fault here.
    targets = [n for n in match_target_layers(model, lora) if model.get_submodule(n) is not head]
    names = sorted({*targets, *inside})
    expected = {f"{PEFT_PREFIX}{name}.{part}.weight" for name in names for part in LORA_TENSORS}
    missing = sorted(expected - tensors.keys())
    if missing:
        raise TrainerError(
            f"The adapter {folder} is not whole: {len(missing)} of its tensors are missing"
            f" ({missing[0]}).",
            fix="restore the job's artifacts.",
        )
    return names
