"""Load a model's weights, and refuse a folder that does not hold the whole model.

transformers (5.23) loads what it can: a tensor that the file lacks becomes random numbers, and one
that the architecture does not have is left out, both with a warning at most. Training on either
gives a model that nobody meant. `output_loading_info` reports them, without the model's own
exceptions (`_keys_to_ignore_on_load_*`), tied weights and recomputed buffers. It does not report
two cases: unused tensors of a GGUF file, and a base model below an adapter.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from safetensors import SafetensorError, safe_open

from local_backend.device import is_out_of_memory
from local_backend.disk_full import disk_full_reason
from local_backend.errors import TrainerError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_NAMED_TENSORS = 3
"""Tensors that an error names; the rest is counted."""
ADAPTER_CONFIG = "adapter_config.json"
RECOMPUTED = re.compile(r"rope_(freqs|factors_long|factors_short)\.weight")
"""Tensors of a GGUF file that transformers computes from the configuration."""
BLOCK = re.compile(r"blk\.(\d+)\.")
"""How GGUF numbers layers."""
EXPERT = re.compile(r"(.*\.experts\.)(\d+)(\..+)")
"""The name of a tensor of one expert: its layer, its number, its part."""
MOST_EXPERTS = 4096
REMEDY = (
    "fetch every file of the model again, and take the config.json that belongs to these weights."
)
UNREADABLE_ERRORS = (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError)
"""What transformers, torch and safetensors raise for files that they cannot read."""


class LoadingInfo(TypedDict):
    """What transformers reports about loading. Of mismatched tensors: name, both shapes."""

    missing_keys: Collection[str]
    unexpected_keys: Collection[str]
    mismatched_keys: Collection[tuple[str, Sequence[int], Sequence[int]]]


def load_pretrained(
    source: str | Path, *, display_name: str | None = None, **options: Any
) -> PreTrainedModel:
    """Return the causal language model in a folder or of a hub id.

    `display_name` is the name for errors. Raise TrainerError when files can't be read, and when
    tensors are missing, left over, or of another shape than the configuration says.
    """
    from transformers import AutoModelForCausalLM

    display_name = display_name or str(source)
    _check_is_no_adapter(Path(source))
    try:
        _check_experts(Path(source))
        # Shapes are allowed to differ so that they can be reported with all other faults at once.
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    except UNREADABLE_ERRORS as error:
        raise unreadable_error(display_name, error) from error
    model: PreTrainedModel
    info: LoadingInfo
    model, info = loaded
    _check_complete(display_name, model, info)
    return model


def unreadable_error(display_name: str, error: Exception) -> Exception:
    """Return the TrainerError for unreadable files; `error` itself if memory or disk ran out."""
    if is_out_of_memory(error) or disk_full_reason(error):
        return error
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return TrainerError(
        f"The model {display_name} can't be loaded: {reason}",
        fix="see `cloudft models` and `cloudft doctor`; a hub model needs the hub"
        " or the model in the local Hugging Face cache.",
    )


def _check_is_no_adapter(folder: Path) -> None:
    """Raise TrainerError for an adapter: its base would be loaded from elsewhere, unchecked."""
    if (folder / ADAPTER_CONFIG).is_file():
        raise TrainerError(
            f"The model {folder} is an adapter, not a whole model.",
            fix="merge it into its base first (`merge_and_unload` of PEFT, or `cloudft export`).",
        )


def _check_experts(folder: Path) -> None:
    """Raise TrainerError for a folder in which a part of an expert is missing.

    transformers stacks the experts that it finds in a layer. A missing one is at best an error that
    names none, and those behind it move up.
    """
    names = [name for path in sorted(folder.glob("*.safetensors")) for name in _tensor_names(path)]
    experts: dict[str, dict[int, set[str]]] = {}
    for match in filter(None, map(EXPERT.fullmatch, names)):
        layer, number, part = match[1], int(match[2]), match[3]
        experts.setdefault(layer, {}).setdefault(number, set()).add(part)
    # Each expert of a layer must have every part that any expert of it has.
    missing = [
        f"{layer}{number}{part}"
        for layer, parts in experts.items()
        for number in range(min(max(parts) + 1, MOST_EXPERTS))
        for part in sorted(set().union(*parts.values()) - parts.get(number, set()))
    ]
    if missing:
        raise TrainerError(
            f"The weights in {folder} are not whole: {_describe_tensors(missing)} missing.",
            fix=REMEDY,
        )


def _tensor_names(file: Path) -> list[str]:
    with safe_open(file, "pt") as opened:
        return list(opened.keys())


def _check_complete(display_name: str, model: PreTrainedModel, info: LoadingInfo) -> None:
    missing, unexpected = info["missing_keys"], info["unexpected_keys"]
    mismatched = {
        f"{name} {list(in_file)} instead of {list(expected)}"
        for name, in_file, expected in info["mismatched_keys"]
    }
    faults = []
    if missing:
        faults.append(f"{_describe_tensors(missing)} missing, and would be random numbers")
    if unexpected:
        faults.append(f"{_describe_tensors(unexpected)} left over, and would not be used")
    if mismatched:
        faults.append(f"{_describe_tensors(mismatched)} of another shape")
    if faults:
        raise incomplete_error(display_name, model, faults)


def incomplete_error(
    display_name: str, model: PreTrainedModel, faults: Collection[str]
) -> TrainerError:
    """Return the error for weights that do not match the model's configuration."""
    layers = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    size = f" with {layers} layers" if layers else ""
    return TrainerError(
        f"The weights in {display_name} are not those of a {type(model).__name__}{size}, which its"
        f" configuration names: {'; '.join(faults)}.",
        fix=REMEDY,
    )


def _describe_tensors(names: Collection[str]) -> str:
    """Return for example `9 tensors (a, b, c and 6 more) are`."""
    ordered = sorted(names, key=_natural_sort_key)
    more = f" and {len(names) - MAX_NAMED_TENSORS} more" if len(names) > MAX_NAMED_TENSORS else ""
    count = f"{len(names)} tensors" if len(names) > 1 else "a tensor"
    verb = "are" if len(names) > 1 else "is"
    return f"{count} ({', '.join(ordered[:MAX_NAMED_TENSORS])}{more}) {verb}"


def _natural_sort_key(name: str) -> list[int | str]:
    """Return text and numbers in turn, so that layer 10 comes after layer 9."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def load_gguf(file: Path) -> PreTrainedModel:
    """Return the model in a GGUF file, dequantized. Raise TrainerError as `load_pretrained` does.

    transformers reads the tensors that its own map names and silently skips the others, so the
    number of values in the file is compared with that of the model.
    """
    model = load_pretrained(file.parent, display_name=str(file), gguf_file=file.name)
    sizes = _gguf_sizes(file)
    layers = model.config.get_text_config().num_hidden_layers
    beyond = {name for name in sizes if (at := BLOCK.match(name)) and int(at[1]) >= layers}
    if beyond:
        raise incomplete_error(
            str(file), model, [f"{_describe_tensors(beyond)} left over, and would not be used"]
        )
    if model.config.get_text_config().tie_word_embeddings:
        # A tied output layer is the embedding; some files have it a second time.
        sizes.pop("output.weight", None)
    in_file, used = sum(sizes.values()), sum(weight.numel() for weight in model.parameters())
    if in_file != used:
        fault = f"the file holds {in_file:,} numbers, the model {used:,}"
        raise incomplete_error(str(file), model, [fault])
    return model


def _gguf_sizes(file: Path) -> dict[str, int]:
    """Return how many values each tensor of a GGUF file has."""
    from gguf import GGUFReader

    return {
        tensor.name: math.prod(int(size) for size in tensor.shape)
        for tensor in GGUFReader(file).tensors
        if not RECOMPUTED.fullmatch(tensor.name)
    }
