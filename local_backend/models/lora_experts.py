"""LoRA on experts that are stacked in one parameter, as transformers 5 keeps them.

A module such as `mlp.experts` holds `gate_up_proj` [experts, out, in] (or [experts, in, out]) and
no linear layer. PEFT adapts such a parameter by `target_parameters`; names, shapes and order of the
tensors here are PEFT's, so that both read the same file. Each expert has an update of its own.

Most such modules compute what transformers' experts interface prescribes. Then the update is
applied to the tokens of each expert (x A B), and no tensor of the weights' size is made. Other
modules get the updated weights for the time of their forward pass; dropout can't be applied there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from local_backend.models.linear_layers import has_content

BASE_LAYER = ".base_layer"
"""What the names of an adapted layer's own weights, and of nested layers, have more."""
INTERFACE = ("has_gate", "has_bias", "is_transposed", "num_experts", "has_post_expert_norm")
"""What transformers' `use_experts_implementation` sets on a module that its interface computes."""


def expert_parameters(module: nn.Module) -> list[str]:
    """Return the names of the module's own parameters that hold stacked experts' matrices."""
    is_experts = "Experts" in type(module).__name__
    return [
        name
        for name, weight in module.named_parameters(recurse=False)
        if weight.ndim == 3 and (is_experts or getattr(module, "num_experts", 0) == len(weight))
    ]


def find_expert_parameters(model: nn.Module) -> dict[str, tuple[int, int, int]]:
    """Return the experts, output and input width of each stacked parameter, by its full name."""
    return {
        f"{name}.{parameter}" if name else parameter: expert_shape(module, parameter)
        for name, module in model.named_modules()
        for parameter in expert_parameters(module)
    }


def expert_shape(module: nn.Module, parameter: str) -> tuple[int, int, int]:
    """Return the number of experts, output width and input width of a stacked parameter.

    As PEFT takes them: [experts, out, in] unless the module says `is_transposed`.
    """
    experts, out, width = getattr(module, parameter).shape
    return (experts, width, out) if _is_transposed(module) else (experts, out, width)


def _is_transposed(module: nn.Module) -> bool:
    return bool(getattr(module, "is_transposed", False))


class LoraExperts(nn.Module):
    """A frozen stacked parameter and its update; wraps the module that holds the parameter.

    `lora_A` is [experts * r, in], `lora_B` [out, r * experts], float32, in PEFT's order. A module
    with several adapted parameters is wrapped several times, its first parameter innermost.
    """

    def __init__(
        self, base: nn.Module, parameter_name: str, r: int, alpha: float, dropout: float
    ) -> None:
        super().__init__()
        self.base_layer, self.parameter_name = base, parameter_name
        holder = self.holder
        experts, out, width = expert_shape(holder, parameter_name)
        device = getattr(holder, parameter_name).device
        self.experts, self.r = experts, r
        self.lora_A = nn.Parameter(torch.empty(experts * r, width, device=device))
        self.lora_B = nn.Parameter(torch.zeros(out, r * experts, device=device))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.scaling = alpha / r
        self.dropout = dropout
        self.enabled = True

    @property
    def holder(self) -> nn.Module:
        """Return the module that holds the parameter."""
        base = self.base_layer
        while isinstance(base, LoraExperts):
            base = base.base_layer
        return base

    def __getattr__(self, name: str) -> Any:
        """Return the attribute of the module that holds the parameter where this one has none."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "base_layer" not in self._modules:
                raise
            return getattr(self.holder, name)

    def factors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return A [experts, r, in] and B [experts, out, r]."""
        a = self.lora_A.view(self.experts, self.r, -1)
        return a, self.lora_B.view(-1, self.r, self.experts).permute(2, 0, 1)

    def update(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the whole update in the parameter's layout, computed in `dtype`."""
        a, b = self.factors()
        update = self.scaling * (b.to(dtype) @ a.to(dtype))
        return update.transpose(1, 2) if _is_transposed(self.holder) else update

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the experts' output with the updates that are enabled."""
        updates = {layer.parameter_name: layer for layer in _chain(self) if layer.enabled}
        holder = self.holder
        if not updates:
            return holder(*args, **kwargs)
        if len(args) == 3 and not kwargs and _is_standard(holder):
            return _forward_by_expert(holder, updates, *args)
        return _forward_with_weights(holder, updates, *args, **kwargs)

    def merge(self) -> nn.Module:
        """Return the wrapped module with the update added to the parameter."""
        weight = getattr(self.holder, self.parameter_name)
        with torch.no_grad():
            weight.copy_((weight.double() + self.update(torch.double)).to(weight.dtype))
        return self.base_layer


def _chain(layer: nn.Module) -> Iterator[LoraExperts]:
    while isinstance(layer, LoraExperts):
        yield layer
        layer = layer.base_layer


def _is_standard(holder: nn.Module) -> bool:
    """Return whether transformers' experts interface computes what this module does."""
    if not all(hasattr(holder, name) for name in INTERFACE):
        return False
    parallel, norm = getattr(holder, "_is_expert_parallel", False), holder.has_post_expert_norm
    # A tensor without content can't tell how many tokens an expert gets.
    return has_content(holder.get_parameter("down_proj")) and not parallel and not norm


def _forward_by_expert(
    holder: Any,
    updates: Mapping[str, LoraExperts],
    hidden: torch.Tensor,
    index: torch.Tensor,
    weights: torch.Tensor,
) -> torch.Tensor:
    """Return the output of each token's experts, summed by `weights`.

    `hidden` is [tokens, width]; `index` and `weights` are [tokens, experts of a token].
    """
    tokens, chosen = index.shape
    expert, order = index.reshape(-1).sort()
    counts = torch.bincount(expert, minlength=int(holder.num_experts)).tolist()
    first = "gate_up_proj" if holder.has_gate else "up_proj"
    x = _project(holder, updates, first, hidden[order // chosen], counts)
    x = holder._apply_gate(x) if holder.has_gate else holder.act_fn(x)
    x = _project(holder, updates, "down_proj", x, counts)
    x = x * weights.reshape(-1)[order].unsqueeze(-1)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    return x[place].view(tokens, chosen, -1).sum(1).to(hidden.dtype)


def _project(
    holder: nn.Module,
    updates: Mapping[str, LoraExperts],
    name: str,
    x: torch.Tensor,
    counts: Sequence[int],
) -> torch.Tensor:
    """Return each expert's product of its rows: the first `counts[0]` rows are expert 0's, ..."""
    weight = getattr(holder, name)
    weight = weight.transpose(1, 2) if _is_transposed(holder) else weight
    bias = getattr(holder, f"{name}_bias") if holder.has_bias else None
    layer = updates.get(name)
    # unbind, because the gradient of A[i] alone would be as large as that of A.
    pairs = (
        None if layer is None else list(zip(*(f.unbind() for f in layer.factors()), strict=True))
    )
    parts = []
    for at, rows in enumerate(x.split(counts)):
        if not counts[at]:
            continue
        part = F.linear(rows.to(weight.dtype), weight[at], None if bias is None else bias[at])
        if layer is not None and pairs is not None:
            a, b = pairs[at]
            dropped = F.dropout(rows, layer.dropout, layer.training).to(a.dtype)
            update = F.linear(F.linear(dropped, a), b) * layer.scaling
            part = part + update.to(part.dtype)
        parts.append(part)
    return torch.cat(parts)


def _forward_with_weights(
    holder: nn.Module, updates: Mapping[str, LoraExperts], *args: Any, **kwargs: Any
) -> Any:
    """Return the module's own forward pass, with updated weights in place of its parameters."""
    frozen = {name: getattr(holder, name) for name in updates}
    updated = {
        name: frozen[name] + layer.update(layer.lora_A.dtype).to(frozen[name].dtype)
        for name, layer in updates.items()
    }
    return torch.func.functional_call(holder, updated, args, kwargs)
