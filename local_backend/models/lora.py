"""LoRA adapters: attach, disable, merge, save and load them in PEFT's format.

LoRA (Hu et al. 2021) adds to a frozen layer's W the product of two thin matrices: W x + s B A x, s
= alpha / r. The layers here are plain modules, so a job needs no `import peft`, which takes
seconds. They are saved as PEFT's adapter folder, and PEFT's rules decide which layers get one.
Experts that are stacked in one parameter are in `lora_experts.py`.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from local_backend.errors import TrainerError
from local_backend.models.linear_layers import is_linear, linear_shape, weight_of
from local_backend.models.lora_experts import BASE_LAYER, LoraExperts, find_expert_parameters
from local_backend.models.lora_reach import AdapterReach, measure_reach
from local_backend.models.target_modules import (
    check_rank,
    is_last_part,
    match_target_layers,
    select_begun,
    select_targets,
    without_stacked_experts,
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
PEFT_EXPERT_PARTS = frozenset({"gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"})
"""Names of linear layers that PEFT (0.21) takes for experts' in models with experts, whatever
layers they are of. Named as parameters (`mlp.gate_proj.weight`), they are left as they are.
"""


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


LoraLayer = LoraLinear | LoraExperts
"""A linear layer or a stack of experts with its update."""


def attach_adapters(
    model: PreTrainedModel, lora: LoraSettings, seed: int, *, experts: bool = True
) -> AdapterReach:
    """Attach fresh adapters, drawn from `seed`, to the selected layers; freeze the rest.

    Without `experts`, stacked experts get none. Return what they reach.
    """
    selection = select_begun(model, lora) if lora.begun_with else select_targets(model, lora)
    if not experts:
        selection = without_stacked_experts(model, selection)
    check_rank(model, selection.targets, lora)
    reach = measure_reach(model, selection)
    torch.manual_seed(seed)
    model.requires_grad_(False)
    for name in selection.targets:
        _attach(model, name, lora)
    return reach


def _attach(model: nn.Module, target: str, lora: LoraSettings) -> LoraLayer:
    """Attach a fresh adapter to a linear layer or a stacked parameter; return it.

    Those of one module are to be attached in the order in which the module has them.
    """
    parent, _, last = target.rpartition(".")
    layer: LoraLayer
    if last in model.get_submodule(parent)._modules:
        layer = LoraLinear(model.get_submodule(target), lora.r, lora.alpha, lora.dropout)
        replace_module(model, target, layer)
        return layer
    layer = LoraExperts(model.get_submodule(parent), last, lora.r, lora.alpha, lora.dropout)
    replace_module(model, parent, layer)
    return layer


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Replace the submodule called `name` with `module`."""
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)


def lora_layers(model: nn.Module) -> Iterator[tuple[str, LoraLayer]]:
    """Yield every adapted layer with its name; of nested ones, the outermost first."""
    return ((n, m) for n, m in model.named_modules() if isinstance(m, LoraLinear | LoraExperts))


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
    # In reverse, because merging an outer layer renames those within it.
    for name, layer in reversed(list(lora_layers(model))):
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
    layers = list(lora_layers(model))
    tensors = {
        f"{PEFT_PREFIX}{name}.{part}.weight": weights[f"{name}.{part}"]
        for name, _ in layers
        for part in LORA_TENSORS
    }
    save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    targets, parameters = _peft_targets(model, lora)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.r,
        "lora_alpha": lora.alpha,
        # PEFT refuses dropout on parameters. It matters in training alone.
        "lora_dropout": 0.0 if parameters else lora.dropout,
        "target_modules": targets,
        "target_parameters": parameters or None,
        "bias": "none",
        "fan_in_fan_out": any(
            isinstance(layer, LoraLinear) and not isinstance(layer.base_layer, nn.Linear)
            for _, layer in layers
        ),
        "inference_mode": True,
    }
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _peft_targets(model: nn.Module, lora: LoraSettings) -> tuple[str | list[str], list[str]]:
    """Return PEFT's `target_modules` and `target_parameters` for the adapted layers.

    PEFT saves the last parts of names that it has resolved `all-linear` to, and so does this; more
    parts where the last one alone would name further layers.
    """
    layers = dict(lora_layers(model))
    stacked = [
        f"{name.replace(BASE_LAYER, '')}.{layer.parameter_name}"
        for name, layer in layers.items()
        if isinstance(layer, LoraExperts)
    ]
    linear = [name for name, layer in layers.items() if isinstance(layer, LoraLinear)]
    if not stacked and lora.target_modules != "all-linear":
        targets = lora.target_modules
        return (targets if isinstance(targets, str) else list(targets)), []
    renamed = {name for name in linear if stacked and name.rpartition(".")[2] in PEFT_EXPERT_PARTS}
    modules = (name.replace(BASE_LAYER, "") for name, _ in model.named_modules())
    parameters = (name.replace(BASE_LAYER, "") for name, _ in model.named_parameters())
    return (
        shortest_names([name for name in linear if name not in renamed], modules),
        shortest_names([*stacked, *(f"{name}.weight" for name in renamed)], parameters),
    )


def shortest_names(selected: Iterable[str], names: Iterable[str]) -> list[str]:
    """Return the fewest last parts of names that mean the selected ones, and no other, of `names`.

    >>> shortest_names(["a.q", "b.q", "a.o"], ["a.q", "b.q", "a.o", "b.o"])
    ['a.o', 'q']
    """
    chosen = set(selected)
    others = {ending for name in set(names) - chosen for ending in _endings(name)}
    return sorted({next((e for e in _endings(n) if e not in others), n) for n in chosen})


def _endings(name: str) -> Iterator[str]:
    """Yield the last part of a name, the last two, and so on."""
    parts = name.split(".")
    return (".".join(parts[at:]) for at in reversed(range(len(parts))))


def load_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Attach the adapter in `folder` to the model.

    Raise TrainerError if it belongs to another model, or if a part of it is missing or left over.
    """
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / ADAPTER_WEIGHTS)
        lora = LoraSettings(config["r"], config["lora_alpha"], 0.0, config["target_modules"])
        parameters = tuple(config.get("target_parameters") or ())
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise TrainerError(
            f"The adapter {folder} can't be read: {error}", fix="restore the job's artifacts."
        ) from error
    sites = _find_adapter_sites(model, folder, tensors, lora, parameters)
    model.requires_grad_(False)
    for name, target in sites.items():
        layer = _attach(model, target, lora)
        for weight, part in ((layer.lora_A, "lora_A"), (layer.lora_B, "lora_B")):
            value = tensors[f"{PEFT_PREFIX}{name}.{part}.weight"]
            if weight.shape != value.shape:
                raise TrainerError(
                    f"{folder} is another model's adapter: a tensor of {name} has the shape"
                    f" {list(value.shape)} instead of {list(weight.shape)}."
                )
            with torch.no_grad():
                weight.copy_(value)


def _find_adapter_sites(
    model: PreTrainedModel,
    folder: Path,
    tensors: Mapping[str, torch.Tensor],
    lora: LoraSettings,
    parameters: Sequence[str],
) -> dict[str, str]:
    """Return the target of each layer of the adapter, which has both of its tensors in `tensors`.

    The name of a layer is that of its tensors; it differs from the target for stacked experts.
    """
    inside = {key.removeprefix(PEFT_PREFIX).rpartition(".lora_")[0] for key in tensors}
    linear = {name: name for name, module in model.named_modules() if is_linear(module)}
    stacked = _stacked_sites(model, parameters)
    unknown = sorted(inside - {*linear, *stacked})
    if unknown:
        # A tensor that is not an adapter's has no layer in its name; then the tensor is named.
        missing_layer = unknown[0] or min(tensors)
        raise TrainerError(
            f"{folder} is another model's adapter: there is no {missing_layer} in this model."
        )
    head = model.get_output_embeddings()
    # An earlier version saved names that match nothing, so those are no fault here.
    targets = [n for n in match_target_layers(model, lora) if model.get_submodule(n) is not head]
    targets += [n for n in linear if any(is_last_part(p, f"{n}.weight") for p in parameters)]
    names = sorted({*targets, *(inside - stacked.keys())})
    sites = {name: name for name in names} | stacked
    expected = {f"{PEFT_PREFIX}{name}.{part}.weight" for name in sites for part in LORA_TENSORS}
    missing = sorted(expected - tensors.keys())
    if missing:
        raise TrainerError(
            f"The adapter {folder} is not whole: {len(missing)} of its tensors are missing"
            f" ({missing[0]}).",
            fix="restore the job's artifacts.",
        )
    return sites


def _stacked_sites(model: nn.Module, parameters: Sequence[str]) -> dict[str, str]:
    """Return the stacked parameters that `target_parameters` names, by their layers' names.

    The first of a module is innermost.
    """
    of_module: dict[str, list[str]] = {}
    for name in find_expert_parameters(model):
        if any(is_last_part(parameter, name) for parameter in parameters):
            of_module.setdefault(name.rpartition(".")[0], []).append(name)
    return {
        module + BASE_LAYER * (len(names) - 1 - at): name
        for module, names in of_module.items()
        for at, name in enumerate(names)
    }
