"""Find the layers that `local.lora.target_modules` selects, by PEFT's rules.

`python -m local_backend.models.target_modules` checks the selection of a job before it is started:
a request with `model` and `lora` as in job.json on standard input; the reply is `{"layers"}`, their
number, or `{"error", "fix"}`. No weights are read.
"""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from local_backend.errors import TrainerError
from local_backend.libraries import silence_libraries
from local_backend.process_exit import exit_now
from local_backend.replies import ReplyWriter
from local_backend.settings import LoraSettings, read_lora

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def is_linear(module: nn.Module) -> bool:
    """Return True for nn.Linear and for GPT-2's Conv1D, which is one with its weight transposed."""
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def linear_shape(base: nn.Module) -> tuple[int, int]:
    """Return the output and input width of a linear layer."""
    if isinstance(base, nn.Linear):
        return base.out_features, base.in_features
    width, out = weight_of(base).shape
    return int(out), int(width)


def weight_of(layer: nn.Module) -> torch.Tensor:
    """Return the weight of a linear layer."""
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    return weight


def match_target_layers(model: PreTrainedModel, lora: LoraSettings) -> list[str]:
    """Return the names of the linear layers that `target_modules` selects, by PEFT's rules.

    `all-linear` is every linear layer except the output layer. Any other string is a regular
    expression for the whole name; a list holds last parts of names.
    """
    linear = [name for name, module in model.named_modules() if is_linear(module)]
    targets = lora.target_modules
    if targets == "all-linear":
        head = model.get_output_embeddings()
        selected = [name for name in linear if model.get_submodule(name) is not head]
    elif isinstance(targets, str):
        selected = [name for name in linear if re.fullmatch(targets, name)]
    else:
        selected = [n for n in linear if any(_is_last_part(target, n) for target in targets)]
    return selected


def _is_last_part(target: str, name: str) -> bool:
    return name == target or name.endswith(f".{target}")


def find_target_layers(model: PreTrainedModel, lora: LoraSettings) -> list[str]:
    """Return what `match_target_layers` does.

    Raise TrainerError if nothing matches, or a name of the list matches no linear layer: the
    adapter would be written as one for layers that it was never trained for.
    """
    selected = match_target_layers(model, lora)
    targets = lora.target_modules
    names = () if isinstance(targets, str) else targets
    unmatched = [t for t in names if not any(_is_last_part(t, name) for name in selected)]
    if selected and not unmatched:
        return selected
    linear = (name for name, module in model.named_modules() if is_linear(module))
    choices = sorted({name.rsplit(".", 1)[-1] for name in linear})
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


def _describe_unmatched(model: nn.Module, target: str, choices: Sequence[str]) -> str:
    """Return what a name is instead of a linear layer, or which names are like it."""
    kinds = {type(m).__name__ for n, m in model.named_modules() if _is_last_part(target, n)}
    if kinds:
        return f"{target} is {' and '.join(sorted(kinds))}"
    close = difflib.get_close_matches(target, choices, n=2)
    return target + (f" (did you mean {' or '.join(close)}?)" if close else "")


def check_rank(model: nn.Module, targets: Iterable[str], lora: LoraSettings) -> None:
    """Raise TrainerError for a rank above every selected layer's width: the adapters would be
    larger.
    """
    widest = max(min(linear_shape(model.get_submodule(name))) for name in targets)
    if lora.r > widest:
        raise TrainerError(
            f"local.lora.r is {lora.r}, and no layer of this model is wider than {widest}.",
            fix=f"set it to {min(widest, 64)} or less.",
        )


def count_target_layers(request: dict[str, Any]) -> int:
    """Return how many layers a job would adapt. Raise TrainerError as its start would."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from local_backend.models.pretrained import UNREADABLE_ERRORS, unreadable_error
    from local_backend.models.weights import locate_tokenizer

    source = locate_tokenizer(request["model"]["name"], request["model"]["weights"])[1]
    try:
        config = AutoConfig.from_pretrained(source)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except UNREADABLE_ERRORS as error:
        raise unreadable_error(source, error) from error
    lora = read_lora(request["lora"])
    targets = find_target_layers(model, lora)
    check_rank(model, targets, lora)
    return len(targets)


def main() -> int:
    """Check one selection; return the exit status."""
    silence_libraries()
    with ReplyWriter() as reply:
        reply({"layers": count_target_layers(json.loads(sys.stdin.readline()))})
    return reply.status


if __name__ == "__main__":
    exit_now(main())
