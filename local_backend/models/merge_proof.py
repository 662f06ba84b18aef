"""Merge adapters, and refuse a merge that is another model.

The merge is proven on a few tokens: the merged model's logits must be the adapted model's. Layers
that share a weight can't be merged: each one's update would change the others too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from local_backend.errors import TrainerError
from local_backend.models import lora
from local_backend.models.gradient_reach import proof_tokens
from local_backend.models.lora_experts import BASE_LAYER
from local_backend.models.lora_reach import kinds_of
from local_backend.models.pretrained import load_pretrained
from local_backend.models.target_modules import find_shared_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOLERANCE = 1e-3
"""Largest allowed difference of a float32 logit, of their largest one where that is above 1."""
MAX_NAMED = 3
REMEDY = "use the adapter without merging it; the adapter itself is unchanged."

Outputs = dict[str, torch.Tensor]
"""The outputs of layers by name, in the order in which they were called."""


def merge_adapters(model: PreTrainedModel) -> None:
    """Add each update to the weights of its layer; no adapter is left.

    Raise TrainerError if the merged model is not the adapted one, with the layers that differ.
    """
    _check_shared_weights(model)
    names = [name for name, _ in lora.lora_layers(model)]
    expected, adapted = _run(model, names)
    lora.merge_adapters(model)
    logits, merged = _run(model, names)
    worst = largest_difference(expected, logits)
    if worst <= TOLERANCE:
        return
    differing = [
        name
        for name, output in merged.items()
        if name in adapted and largest_difference(adapted[name], output) > TOLERANCE
    ]
    where = f"; the first layers that differ are {', '.join(differing[:MAX_NAMED])}"
    raise TrainerError(
        f"The merged model is not the tuned one: logits differ by up to {worst:.2g} (allowed"
        f" {TOLERANCE:g}){where if differing else ''}.",
        fix=REMEDY,
    )


def check_saved_model(model: PreTrainedModel, folder: Path) -> None:
    """Raise TrainerError if the model in `folder` is not `model`, which was saved there."""
    saved = load_pretrained(folder, dtype=torch.float32)
    nn.Module.to(saved, model.device)
    worst = largest_difference(_run(model, [])[0], _run(saved, [])[0])
    if worst > TOLERANCE:
        raise TrainerError(
            "The merged model is another one when it is read back: logits differ by up to"
            f" {worst:.2g} (allowed {TOLERANCE:g}).",
            fix=REMEDY,
        )


def largest_difference(expected: torch.Tensor, actual: torch.Tensor) -> float:
    """Return the largest difference, as a share of the largest value where that is above 1.

    Infinite where a value is no number.
    """
    worst = float((expected - actual).abs().max() / expected.abs().max().clamp(min=1.0))
    return worst if worst == worst else float("inf")


def _check_shared_weights(model: PreTrainedModel) -> None:
    adapted = {name for name, _ in lora.lora_layers(model)}
    shared = {name.removesuffix(BASE_LAYER) for name in find_shared_layers(model)} & adapted
    head = model.get_output_embeddings()
    shared -= {name for name in shared if model.get_submodule(name) is head}
    if shared:
        raise TrainerError(
            "The adapter can't be merged: its layers share weights with others, whose output each"
            f" update would change too ({', '.join(kinds_of(shared))}).",
            fix=f"{REMEDY} Or train it again with target_modules: all-linear, which leaves these"
            " layers out.",
        )


def _run(model: PreTrainedModel, names: list[str]) -> tuple[torch.Tensor, Outputs]:
    """Return the logits of a few tokens, and the outputs of the layers that give one tensor."""
    outputs: Outputs = {}
    was_training = model.training
    model.eval()
    try:
        with _recorded(model, names, outputs), torch.inference_mode():
            logits = model(input_ids=proof_tokens(model), use_cache=False).logits
    finally:
        model.train(was_training)
    return logits.float(), outputs


@contextlib.contextmanager
def _recorded(model: nn.Module, names: list[str], outputs: Outputs) -> Iterator[None]:
    def record(name: str, output: object) -> None:
        if isinstance(output, torch.Tensor):
            outputs[name] = output.float()

    modules = dict(model.named_modules())
    hooks = [
        modules[name].register_forward_hook(lambda _m, _i, output, name=name: record(name, output))
        for name in names
        if name in modules
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
