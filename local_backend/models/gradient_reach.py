"""Find the linear layers that an adapter would do nothing for, by measuring.

The model runs once on a few tokens, and the graph of its logits is followed back. A layer that the
graph does not reach would get an adapter without a gradient: cross-attention without an encoder, an
index that only selects, a pooler, or a layer whose weight is read and that is never called.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from local_backend.device import is_out_of_memory
from local_backend.models.linear_layers import is_linear

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENS = 16
FIRST_TOKEN = 8
"""Tokens below it are special in some families."""


def find_unreached(model: PreTrainedModel) -> set[str] | None:
    """Return the names of the linear layers that get no gradient.

    None where the model can't run, for example under FakeTensorMode with a control flow that
    depends on its weights. Neither weights nor settings of the model are changed.
    """
    probes: dict[str, torch.Tensor] = {}
    with _probed(model, probes):
        try:
            logits = _run(model)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            return None
        reached = _leaves(logits)
    linear = {name for name, module in model.named_modules() if is_linear(module)}
    return {name for name in linear if name not in probes or id(probes[name]) not in reached}


@contextlib.contextmanager
def _probed(model: PreTrainedModel, probes: dict[str, torch.Tensor]) -> Iterator[None]:
    """Add a zero with a gradient to the output of each linear layer that is called."""
    had_gradient = [(weight, weight.requires_grad) for weight in model.parameters()]
    was_training = model.training
    hooks = [
        module.register_forward_hook(_make_hook(name, probes))
        for name, module in model.named_modules()
        if is_linear(module)
    ]
    try:
        model.eval()
        model.requires_grad_(False)
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for weight, required in had_gradient:
            weight.requires_grad_(required)
        model.train(was_training)


def _make_hook(name: str, probes: dict[str, torch.Tensor]) -> Any:
    def add_probe(_module: nn.Module, _inputs: object, output: Any) -> Any:
        if not isinstance(output, torch.Tensor) or not output.is_floating_point():
            return output
        if name not in probes:
            probes[name] = torch.zeros((), device=output.device, dtype=output.dtype)
            probes[name].requires_grad_(True)
        return output + probes[name]

    return add_probe


def proof_tokens(model: PreTrainedModel) -> torch.Tensor:
    """Return a row of a few tokens of the model's vocabulary, [1, tokens]."""
    vocabulary = int(model.config.get_text_config().vocab_size)
    ids = torch.arange(FIRST_TOKEN, FIRST_TOKEN + TOKENS, device=model.device) % vocabulary
    return ids.unsqueeze(0)


def _run(model: PreTrainedModel) -> torch.Tensor:
    with torch.enable_grad():
        logits = model(input_ids=proof_tokens(model), use_cache=False).logits
    assert isinstance(logits, torch.Tensor)
    return logits


def _leaves(output: torch.Tensor) -> set[int]:
    """Return the ids of the tensors that get a gradient from the output."""
    leaves, seen, waiting = set(), set(), [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.add(id(node.variable))
        waiting += [following for following, _ in node.next_functions]
    return leaves
