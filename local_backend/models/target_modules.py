"""Find the linear layers and stacked experts that `local.lora.target_modules` selects.

A target is the name of a linear layer, or of a parameter that stacks experts' matrices
(`mlp.experts.gate_up_proj`). Names are matched by PEFT's rules. `all-linear` is every target that
can be trained, merged and loaded by PEFT; what is left out has a reason.

`python -m local_backend.models.target_modules` checks the selection of a job before it is started:
a request with `model`, `lora` and `method` as in job.json on standard input; the reply is that of
`lora_reach.AdapterReach.to_json`, or `{"error", "fix"}`. No weights are read.
"""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from local_backend.errors import TrainerError
from local_backend.libraries import silence_libraries
from local_backend.models.gradient_reach import find_unreached
from local_backend.models.linear_layers import is_linear, linear_shape, weight_of
from local_backend.models.lora_experts import BASE_LAYER, find_expert_parameters
from local_backend.process_exit import exit_now
from local_backend.replies import ReplyWriter
from local_backend.settings import LoraSettings, read_lora

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NO_GRADIENT, ROUTER = "gets no gradient", "router"
NOT_QUANTIZED = "experts, not with qlora"
SHARED, REFUSED_BY_PEFT = "weights shared between layers", "PEFT refuses it"
PEFT_MAMBA_FAMILIES = frozenset({"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"})
PEFT_MAMBA_LAYERS = frozenset({"out_proj", "conv1d"})
"""Layers that PEFT (0.21) loads no adapter for, in these families: fused kernels read their weights
without calling them."""


@dataclass(frozen=True)
class Selection:
    """What gets an adapter, and why the rest of what the names select does not.

    `shared` are targets that can't be merged, because they share their weights.
    """

    targets: list[str]
    left_out: dict[str, str]
    shared: frozenset[str] = frozenset()


def match_target_layers(model: PreTrainedModel, lora: LoraSettings) -> list[str]:
    """Return the names of the linear layers that `target_modules` selects, by PEFT's rules.

    `all-linear` is every linear layer except the output layer. Any other string is a regular
    expression for the whole name; a list holds last parts of names.
    """
    head = model.get_output_embeddings()
    is_all = lora.target_modules == "all-linear"
    linear = (
        name
        for name, module in model.named_modules()
        if is_linear(module) and not (is_all and module is head)
    )
    return _match(linear, lora)


def _match(names: Iterable[str], lora: LoraSettings) -> list[str]:
    targets = lora.target_modules
    if targets == "all-linear":
        return list(names)
    if isinstance(targets, str):
        return [name for name in names if re.fullmatch(targets, name)]
    return [name for name in names if any(is_last_part(target, name) for target in targets)]


def is_last_part(target: str, name: str) -> bool:
    """Return whether a name ends with the parts of `target`."""
    return name == target or name.endswith(f".{target}")


def select_targets(model: PreTrainedModel, lora: LoraSettings) -> Selection:
    """Return what gets an adapter. Raise TrainerError as `find_target_layers` does."""
    selected = match_target_layers(model, lora)
    selected += _match(find_expert_parameters(model), lora)
    _check_names(model, lora, selected)
    unreached = find_unreached(model) or set()
    reasons = {name: NO_GRADIENT for name in selected if name in unreached}
    if lora.target_modules == "all-linear":
        reasons = _reasons_of_all_linear(model, selected) | reasons
    _check_gradients(lora, selected, unreached)
    targets = [name for name in selected if name not in reasons]
    if not targets:
        raise TrainerError(
            "No layer of this model can get an adapter that is trained and merged"
            f" ({', '.join(sorted(set(reasons.values())))}).",
            fix="use `local.method: full`.",
        )
    return Selection(targets, reasons, find_shared_layers(model) & set(targets))


def select_begun(model: PreTrainedModel, lora: LoraSettings) -> Selection:
    """Return as targets the layers that a checkpoint has adapters of (`lora.begun_with`).

    Those of another model, in a checkpoint that is damaged, are no choice: then select as a new job
    does.
    """
    begun = set(lora.begun_with)
    linear = (name for name, module in model.named_modules() if is_linear(module))
    targets = [name for name in linear if name in begun]
    # Layers of stacked experts are named by their module, one within the other.
    layers = Counter(name.replace(BASE_LAYER, "") for name in begun - set(targets))
    for name in _match(find_expert_parameters(model), lora):
        module = name.rpartition(".")[0]
        if layers[module]:
            layers[module] -= 1
            targets.append(name)
    if len(targets) != len(begun):
        return select_targets(model, lora)
    return Selection(targets, {}, find_shared_layers(model) & set(targets))


def without_stacked_experts(model: nn.Module, selection: Selection) -> Selection:
    """Return the selection's linear layers; the stacked experts are left out."""
    experts = find_expert_parameters(model)
    targets = [name for name in selection.targets if name not in experts]
    left_out = selection.left_out | dict.fromkeys(experts, NOT_QUANTIZED)
    return Selection(targets, left_out, selection.shared)


def find_target_layers(model: PreTrainedModel, lora: LoraSettings) -> list[str]:
    """Return the names of what gets an adapter.

    Raise TrainerError if nothing matches, if a name of the list matches nothing (the adapter would
    be written as one for layers that it was never trained for), or only layers without a gradient.
    """
    return select_targets(model, lora).targets


def _reasons_of_all_linear(model: PreTrainedModel, selected: Sequence[str]) -> dict[str, str]:
    """Return why layers are no part of `all-linear`, by name."""
    has_experts = bool(find_expert_parameters(model))
    shared = find_shared_layers(model)
    is_mamba = model.config.get_text_config().model_type in PEFT_MAMBA_FAMILIES
    reasons = {}
    for name in selected:
        if has_experts and is_router(name):
            reasons[name] = ROUTER
        elif name in shared:
            reasons[name] = SHARED
        elif is_mamba and name.rpartition(".")[2] in PEFT_MAMBA_LAYERS:
            reasons[name] = REFUSED_BY_PEFT
    return reasons


def is_router(name: str) -> bool:
    """Return whether a layer or parameter of a model with experts chooses among them, by name."""
    return any(part == "gate" or "router" in part for part in name.split("."))


def find_shared_layers(model: nn.Module) -> frozenset[str]:
    """Return the linear layers whose weight is used under more than one name.

    Each name would get an adapter, or only the first one; merged, all of them change the weight.
    """
    names: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if is_linear(module):
            names.setdefault(id(weight_of(module)), []).append(name)
    return frozenset(name for same in names.values() if len(same) > 1 for name in same)


def _check_names(model: PreTrainedModel, lora: LoraSettings, selected: Sequence[str]) -> None:
    """Raise TrainerError if nothing is selected, or a name of the list selects nothing."""
    targets = lora.target_modules
    names = () if isinstance(targets, str) else targets
    unmatched = [t for t in names if not any(is_last_part(t, name) for name in selected)]
    if selected and not unmatched:
        return
    linear = (name for name, module in model.named_modules() if is_linear(module))
    found = (*linear, *find_expert_parameters(model))
    choices = sorted({name.rsplit(".", 1)[-1] for name in found})
    if not unmatched:
        raise TrainerError(
            f"local.lora.target_modules {targets!r} matches no linear layer of this model.",
            fix=f"use all-linear, or some of {', '.join(choices)}.",
        )
    raise TrainerError(
        "local.lora.target_modules names what is no linear layer of this model: "
        + "; ".join(_describe_unmatched(model, name, choices) for name in unmatched)
        + ".",
        fix=f"use all-linear, or some of {', '.join(choices)}; `local.method: full` trains"
        " embeddings too.",
    )


def _check_gradients(lora: LoraSettings, selected: Sequence[str], unreached: set[str]) -> None:
    """Raise TrainerError for a name of the list that selects only layers without a gradient."""
    targets = lora.target_modules
    if targets == "all-linear":
        return
    groups = (
        {str(targets): selected}
        if isinstance(targets, str)
        else {
            target: [name for name in selected if is_last_part(target, name)] for target in targets
        }
    )
    useless = ", ".join(target for target, names in groups.items() if unreached.issuperset(names))
    if useless:
        raise TrainerError(
            "local.lora.target_modules names layers that get no gradient in this model, so that"
            f" their adapters would never change: {useless}.",
            fix=f"leave out {useless}, or use all-linear.",
        )


def _describe_unmatched(model: nn.Module, target: str, choices: Sequence[str]) -> str:
    """Return what a name is instead of a linear layer, or which names are like it."""
    kinds = {type(m).__name__ for n, m in model.named_modules() if is_last_part(target, n)}
    if kinds:
        return f"{target} is {' and '.join(sorted(kinds))}"
    close = difflib.get_close_matches(target, choices, n=2)
    return target + (f" (did you mean {' or '.join(close)}?)" if close else "")


def check_rank(model: nn.Module, targets: Iterable[str], lora: LoraSettings) -> None:
    """Raise TrainerError for a rank above every target's width: the adapters would be larger."""
    experts = find_expert_parameters(model)
    widest = max(
        min(experts[name][1:] if name in experts else linear_shape(model.get_submodule(name)))
        for name in targets
    )
    if lora.r > widest:
        raise TrainerError(
            f"local.lora.r is {lora.r}, and no layer of this model is wider than {widest}.",
            fix=f"set it to {min(widest, 64)} or less.",
        )


def describe_job_adapters(request: dict[str, Any]) -> dict[str, Any]:
    """Return what a job would adapt and what not. Raise TrainerError as its start would."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers import AutoConfig, AutoModelForCausalLM

    from local_backend.models.lora_reach import measure_reach
    from local_backend.models.pretrained import UNREADABLE_ERRORS, unreadable_error
    from local_backend.models.weights import locate_tokenizer

    source = locate_tokenizer(request["model"]["name"], request["model"]["weights"])[1]
    lora = read_lora(request["lora"])
    # bfloat16, because the kernel of stacked experts has no shapes for float32.
    with FakeTensorMode(allow_non_fake_inputs=True):
        try:
            config = AutoConfig.from_pretrained(source)
            model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        except UNREADABLE_ERRORS as error:
            raise unreadable_error(source, error) from error
        selection = select_targets(model, lora)
        if request.get("method") == "qlora":
            selection = without_stacked_experts(model, selection)
        check_rank(model, selection.targets, lora)
        return measure_reach(model, selection).to_json()


def main() -> int:
    """Check one selection; return the exit status."""
    silence_libraries()
    with ReplyWriter() as reply:
        reply(describe_job_adapters(json.loads(sys.stdin.readline())))
    return reply.status


if __name__ == "__main__":
    exit_now(main())
