"""Check before a model exists whether it can be written as a GGUF file. No weights are read.

What refuses it is the code that writes the file, run on the configuration, on the tokenizer, and on
the names and shapes that a model of that configuration has: one rule in one place.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from local_backend.errors import TrainerError
from local_backend.export.features import ModelFiles, rope_types

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from local_backend.export.gguf.families import GgufFamily


def check_gguf(files: ModelFiles, quantization: str, tokenizer: str) -> None:
    """Raise TrainerError for a model that llama.cpp would compute otherwise.

    The same for a quantization that can't be written. `tokenizer` is its folder or hub id.
    """
    from transformers import AutoConfig

    from local_backend.export.gguf.file import find_gguf_family
    from local_backend.export.gguf.precision import find_quantization
    from local_backend.export.gguf.settings import check_settings
    from local_backend.export.gguf.tensors import OTHER_RUNTIME

    find_quantization(quantization)
    family = find_gguf_family(files.family)
    settings: dict[str, Any] = dict(files.text_config)
    settings.pop("model_type", None)
    config = AutoConfig.for_model(files.family, **settings)
    check_settings(config, family)
    others = sorted(rope_types(files.text_config).keys() - family.rope_types)
    if others:
        raise TrainerError(
            f"llama.cpp's {family.architecture!r} does not apply rope scaling of type"
            f" {', '.join(others)}.",
            fix=OTHER_RUNTIME,
        )
    _plan_file(config, family, tokenizer)


def _plan_file(config: PreTrainedConfig, family: GgufFamily, source: str) -> None:
    """Make everything of the file but its weights. Raise TrainerError for what it can't hold."""
    import gguf

    from local_backend.export.gguf.rope import write_rope
    from local_backend.export.gguf.vocabulary import name_model, write_vocabulary
    from local_backend.models.load_tokenizer import load_tokenizer

    writer = gguf.GGUFWriter(None, family.architecture)  # of no file: it collects
    write_rope(writer, config, family)
    _plan_weights(config, family)
    tokenizer = load_tokenizer(source)[0]
    write_vocabulary(writer, tokenizer, int(config.vocab_size))
    name_model("", tokenizer)


def _plan_weights(config: PreTrainedConfig, family: GgufFamily) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from local_backend.export.gguf.checkpoint import Checkpoint
    from local_backend.export.gguf.tensors import plan_tensors

    if family.experts is not None:  # saved under other names than a model in memory has
        return

    class UnsavedCheckpoint(Checkpoint):
        """The tensors that a model of this configuration will be saved with."""

        def __init__(self) -> None:
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(config)
            tensors = sorted(model.state_dict().items())  # in the order of safetensors
            self._files = {name: (Path(), tuple(tensor.shape)) for name, tensor in tensors}

    plan_tensors(UnsavedCheckpoint(), config, family)
