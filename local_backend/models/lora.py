"""LoRA adapters: put on, switched off, merged, and kept as PEFT keeps them.

LoRA (Hu et al. 2021) adds to a frozen layer's W the product of two thin matrices: W x + s B A x,
s = alpha / r. The layers here are plain modules, so a job needs no `import peft` (seconds); what
they leave is PEFT's adapter folder, and PEFT's naming decides which layers are meant.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from local_backend.errors import TrainerError
from local_backend.settings import LoraSettings

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
        device = base.weight.device
        self.lora_A = nn.Parameter(torch.empty(r, width, device=device))
        self.lora_B = nn.Parameter(torch.zeros(out, r, device=device))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.scaling = alpha / r
        self.dropout = dropout
        self.enabled = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's output with its update, or without when that is switched off."""
        out = self.base_layer(x)
        if not self.enabled:
            return out
        dropped = F.dropout(x, self.dropout, self.training).to(self.lora_A.dtype)
        update = F.linear(F.linear(dropped, self.lora_A), self.lora_B) * self.scaling
        return out + update.to(out.dtype)

    def merge(self) -> nn.Module:
        """The layer itself with the update in its weights, computed in double precision."""
        update = self.scaling * (self.lora_B.double() @ self.lora_A.double())
        weight = self.base_layer.weight
        with torch.no_grad():
            update = update if isinstance(self.base_layer, nn.Linear) else update.T
            weight.copy_((weight.double() + update).to(weight.dtype))
        return self.base_layer


def is_linear(module: nn.Module) -> bool:
    """True of nn.Linear and of GPT-2's Conv1D, which is one with its weight transposed."""
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def linear_shape(base: nn.Module) -> tuple[int, int]:
    """How many numbers a linear layer gives and takes."""
    if isinstance(base, nn.Linear):
        return base.out_features, base.in_features
    width, out = base.weight.shape
    return int(out), int(width)


def find_target_layers(model: Any, lora: LoraSettings) -> list[str]:
    """The names of the layers that `target_modules` means, by PEFT's rules.

    `all-linear` is every linear layer but the output layer; another text is a regular expression
    for the whole name; a list holds last parts of names. Raises TrainerError when nothing fits.
    """
    linear = [name for name, module in model.named_modules() if is_linear(module)]
    wanted = lora.target_modules
    if wanted == "all-linear":
        head = model.get_output_embeddings()
        chosen = [name for name in linear if model.get_submodule(name) is not head]
    elif isinstance(wanted, str):
        chosen = [name for name in linear if re.fullmatch(wanted, name)]
    else:
        chosen = [n for n in linear if any(n == w or n.endswith(f".{w}") for w in wanted)]
    if not chosen:
        last = sorted({name.rsplit(".", 1)[-1] for name in linear})
        raise TrainerError(
            f"local.lora.target_modules {wanted!r} does not fit this model: no linear layer of it"
            " has such a name.",
            fix=f"use all-linear, or some of {', '.join(last)}.",
        )
    return chosen


def check_rank(model: Any, chosen: Iterable[str], lora: LoraSettings) -> None:
    """Raise TrainerError for a rank beyond every chosen layer: the adapters would be larger."""
    widest = max(min(linear_shape(model.get_submodule(name))) for name in chosen)
    if lora.r > widest:
        raise TrainerError(
            f"local.lora.r is {lora.r}, and no layer of this model is wider than {widest}.",
            fix=f"set it to {min(widest, 64)} or less.",
        )


def attach_adapters(model: Any, lora: LoraSettings, seed: int) -> None:
    """Fresh adapters, drawn from `seed`, on the layers of `lora`; all else is frozen."""
    torch.manual_seed(seed)
    chosen = find_target_layers(model, lora)
    check_rank(model, chosen, lora)
    model.requires_grad_(False)
    for name in chosen:
        replace_module(
            model, name, LoraLinear(model.get_submodule(name), lora.r, lora.alpha, lora.dropout)
        )


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` where `name` says."""
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)


def lora_layers(model: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    """Every adapted layer with its name."""
    return ((n, m) for n, m in model.named_modules() if isinstance(m, LoraLinear))


@contextlib.contextmanager
def disable_adapters(model: nn.Module) -> Iterator[None]:
    """The base model within."""
    adapted = [layer for _, layer in lora_layers(model)]
    for layer in adapted:
        layer.enabled = False
    try:
        yield
    finally:
        for layer in adapted:
            layer.enabled = True


def merge_adapters(model: nn.Module) -> None:
    """Each update into the weights of its layer; no adapter is left."""
    for name, layer in list(lora_layers(model)):
        replace_module(model, name, layer.merge())


def save_adapter(
    model: Any, lora: LoraSettings, folder: Path, base: str, weights: Mapping[str, torch.Tensor]
) -> None:
    """Write the adapter as PEFT does, so that PeftModel.from_pretrained reads it.

    `weights` are the adapter's by their names in the model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors, transposed = {}, False
    for name, layer in lora_layers(model):
        transposed = transposed or not isinstance(layer.base_layer, nn.Linear)
        for part in LORA_TENSORS:
            tensors[f"{PEFT_PREFIX}{name}.{part}.weight"] = weights[f"{name}.{part}"]
    save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    wanted = lora.target_modules
    if wanted == "all-linear":
        wanted = sorted({name.rsplit(".", 1)[-1] for name, _ in lora_layers(model)})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.r,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": wanted if isinstance(wanted, str) else list(wanted),
        "bias": "none",
        "fan_in_fan_out": transposed,
        "inference_mode": True,
    }
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_adapter(model: Any, folder: Path) -> None:
    """Put the adapter in `folder` on the model.

    Raises TrainerError when it is another model's, and when a part of it is missing or left over.
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
    model: Any, folder: Path, tensors: Mapping[str, Any], lora: LoraSettings
) -> list[str]:
    """Return the layers that the adapter is for, each with both of its tensors in `tensors`."""
    inside = {key.removeprefix(PEFT_PREFIX).rpartition(".lora_")[0] for key in tensors}
    linear = {name for name, module in model.named_modules() if is_linear(module)}
    strange = sorted(inside - linear)
    if strange:
        what = f"there is no {strange[0]}" if strange[0] else f"there is no {min(tensors)}"
        raise TrainerError(f"{folder} is another model's adapter: {what}.")
    head = model.get_output_embeddings()
    meant = [n for n in find_target_layers(model, lora) if model.get_submodule(n) is not head]
    names = sorted({*meant, *inside})
    expected = {f"{PEFT_PREFIX}{name}.{part}.weight" for name in names for part in LORA_TENSORS}
    missing = sorted(expected - tensors.keys())
    if missing:
        raise TrainerError(
            f"The adapter {folder} is not whole: {len(missing)} of its tensors are missing"
            f" ({missing[0]}).",
            fix="restore the job's artifacts.",
        )
    return names
