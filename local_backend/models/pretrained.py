"""Load a model's weights and refuse a folder that does not hold the whole model.

transformers (5.23) loads what it finds: a tensor that the file lacks becomes random numbers, one
that the architecture has no place for is left out, both with a warning at most. Trained on, either
gives a model that nobody meant. `output_loading_info` reports them, after the model's own lists
(`_keys_to_ignore_on_load_*`), tied weights and recomputed buffers were taken away. Two things it
does not report: what of a GGUF file was not used, and a base model below an adapter.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from local_backend.device import is_out_of_memory
from local_backend.disk_full import disk_full_reason
from local_backend.errors import TrainerError

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
"""What transformers, torch and safetensors raise for files that they can't read."""


def load_pretrained(source: str | Path, *, display_name: str | None = None, **options: Any) -> Any:
    """Return the causal language model in a folder or of a hub id.

    `shown` is the name for errors. Raise TrainerError when files can't be read, and when tensors
    are missing, left over, or of another shape than the configuration says.
    """
    from transformers import AutoModelForCausalLM

    display_name = display_name or str(source)
    _check_is_no_adapter(Path(source))
    try:
        _check_experts(Path(source))
        model, info = AutoModelForCausalLM.from_pretrained(
            source, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    except UNREADABLE_ERRORS as error:
        raise unreadable_error(display_name, error) from error
    _check_complete(display_name, model, info)
    return model


def unreadable_error(shown: str, error: Exception) -> Exception:
    """Return the TrainerError for files that can't be read; `error` itself where it is memory."""
    if is_out_of_memory(error) or disk_full_reason(error):
        return error
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return TrainerError(
        f"The model {shown} can't be loaded: {reason}",
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

    transformers stacks the experts that it finds in a layer: one that is missing is at best an
    error that names none, and those behind it move up.
    """
    names = [name for path in sorted(folder.glob("*.safetensors")) for name in _tensor_names(path)]
    experts: dict[str, dict[int, set[str]]] = {}
    for found in filter(None, map(EXPERT.fullmatch, names)):
        experts.setdefault(found[1], {}).setdefault(int(found[2]), set()).add(found[3])
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


def _check_complete(shown: str, model: Any, info: Mapping[str, Any]) -> None:
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
        raise incomplete_error(shown, model, faults)


def incomplete_error(shown: str, model: Any, faults: Collection[str]) -> TrainerError:
    """Return the error for weights that are not those of the model's configuration."""
    layers = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    size = f" with {layers} layers" if layers else ""
    return TrainerError(
        f"The weights in {shown} are not those of a {type(model).__name__}{size}, which its"
        f" configuration names: {'; '.join(faults)}.",
        fix=REMEDY,
    )


def _describe_tensors(names: Collection[str]) -> str:
    """Return `9 tensors (a, b, c and 6 more) are`."""
    ordered = sorted(
        names, key=lambda name: [int(p) if p.isdigit() else p for p in _natural_sort_key(name)]
    )
    more = f" and {len(names) - MAX_NAMED_TENSORS} more" if len(names) > MAX_NAMED_TENSORS else ""
    count = f"{len(names)} tensors" if len(names) > 1 else "a tensor"
    verb = "are" if len(names) > 1 else "is"
    return f"{count} ({', '.join(ordered[:MAX_NAMED_TENSORS])}{more}) {verb}"


def _natural_sort_key(name: str) -> list[str]:
    """Return text and numbers in turn, so that layer 10 comes after layer 9."""
    return re.split(r"(\d+)", name)


def load_gguf(file: Path) -> Any:
    """Return the model in a GGUF file, dequantized. Raise TrainerError as `load_pretrained` does.

    transformers reads the tensors that its own map names and passes over the others without a word,
    so the numbers in the file are counted against those in the model.
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
        sizes.pop("output.weight", None)
    in_file, used = sum(sizes.values()), sum(weight.numel() for weight in model.parameters())
    if in_file != used:
        fault = f"the file holds {in_file:,} numbers, the model {used:,}"
        raise incomplete_error(str(file), model, [fault])
    return model


def _gguf_sizes(file: Path) -> dict[str, int]:
    """Return how many numbers each tensor of a GGUF file has."""
    from gguf import GGUFReader

    return {
        tensor.name: math.prod(int(size) for size in tensor.shape)
        for tensor in GGUFReader(file).tensors
        if not RECOMPUTED.fullmatch(tensor.name)
    }
