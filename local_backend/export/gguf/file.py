"""Write a merged model folder as one GGUF file, which llama.cpp and Ollama run."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from local_backend.errors import TrainerError
from local_backend.export.gguf.answers import write_sampling, write_special_tokens
from local_backend.export.gguf.checkpoint import Checkpoint
from local_backend.export.gguf.families import GGUF_FAMILIES, GgufFamily
from local_backend.export.gguf.precision import (
    Quantization,
    choose_type,
    find_quantization,
    quantize,
    stored_size,
)
from local_backend.export.gguf.rope import write_rope
from local_backend.export.gguf.settings import write_settings
from local_backend.export.gguf.tensors import (
    EMBEDDING,
    HEAD,
    OTHER_RUNTIME,
    PlannedTensor,
    plan_tensors,
)
from local_backend.export.gguf.vocabulary import name_model, write_vocabulary
from local_backend.models.load_tokenizer import load_tokenizer
from local_backend.models.portable_config import GENERATION_CONFIG

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from transformers import GenerationConfig, PreTrainedConfig

Progress = Callable[[int, int], None]
"""Gets the bytes of tensors that are written, and that will be."""


class GgufSummary(TypedDict):
    """What a GGUF file holds."""

    architecture: str
    quantization: str
    preTokenizer: str
    contextLength: int
    tensors: int
    bytes: int
    types: dict[str, int]
    """How many tensors are kept in each type."""
    notes: list[str]
    """What the file can't hold or llama.cpp does otherwise, as sentences."""


def write_gguf(
    folder: Path, out_file: Path, quantization: str, *, progress: Progress | None = None
) -> GgufSummary:
    """Write the model in `folder` to `out_file`, which appears whole or not at all.

    One tensor is in memory at a time. Raise TrainerError, before anything is written, for a model
    that llama.cpp would compute otherwise than transformers.
    """
    kind = find_quantization(quantization)
    config = read_config(folder)
    family = find_gguf_family(str(config.model_type))
    out_file.parent.mkdir(parents=True, exist_ok=True)
    temporary = out_file.with_name(f".{out_file.name}.cloudft-{secrets.token_hex(4)}")
    try:
        summary = _write(folder, temporary, config, family, kind, progress)
        summary["bytes"] = temporary.stat().st_size
        _sync(temporary)
        temporary.replace(out_file)
        _sync(out_file.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return summary


def read_config(folder: Path) -> PreTrainedConfig:
    """Return the configuration of a folder's language model."""
    from transformers import AutoConfig

    config: PreTrainedConfig = AutoConfig.from_pretrained(folder).get_text_config()
    return config


def read_generation_config(folder: Path) -> GenerationConfig | None:
    """Return how the folder's model generates, None if it does not say."""
    from transformers import GenerationConfig

    if not (folder / GENERATION_CONFIG).is_file():
        return None
    generation: GenerationConfig = GenerationConfig.from_pretrained(folder)
    return generation


def find_gguf_family(model_type: str) -> GgufFamily:
    """Return how a family is written. Raise TrainerError for one that is not."""
    family = GGUF_FAMILIES.get(model_type)
    if family is None:
        raise TrainerError(
            f"Models of family {model_type!r} are not written as GGUF: only those of"
            f" {', '.join(GGUF_FAMILIES)} are compared with llama.cpp.",
            fix=OTHER_RUNTIME,
        )
    return family


def _write(
    folder: Path,
    path: Path,
    config: PreTrainedConfig,
    family: GgufFamily,
    kind: Quantization,
    progress: Progress | None,
) -> GgufSummary:
    import gguf

    with contextlib.closing(gguf.GGUFWriter(path, family.architecture)) as writer:
        return _fill(writer, folder, config, family, kind, progress)


def _fill(
    writer: GGUFWriter,
    folder: Path,
    config: PreTrainedConfig,
    family: GgufFamily,
    kind: Quantization,
    progress: Progress | None,
) -> GgufSummary:
    import gguf

    tokenizer = load_tokenizer(str(folder))[0]
    generation = read_generation_config(folder)
    planned = plan_tensors(Checkpoint(folder), config, family)
    notes = write_settings(writer, config, family)
    planned += write_rope(writer, config, family)
    pre_tokenizer = write_vocabulary(writer, tokenizer, int(config.vocab_size))
    notes += write_special_tokens(writer, tokenizer, generation)
    length = int(writer.kv_data[0][f"{family.architecture}.context_length"].value)
    write_sampling(writer, generation, length)
    writer.add_type("model")
    writer.add_name(name_model(folder.name, tokenizer))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    file_type = "ALL_F32" if kind.name == "F32" else f"MOSTLY_{kind.name}"
    writer.add_file_type(gguf.LlamaFileType[file_type])
    types = _write_tensors(writer, planned, config, kind, progress)
    return {
        "architecture": family.architecture,
        "quantization": kind.name,
        "preTokenizer": pre_tokenizer,
        "contextLength": length,
        "tensors": len(planned),
        "bytes": 0,
        "types": {name: types.count(name) for name in sorted(set(types))},
        "notes": notes,
    }


def _write_tensors(
    writer: GGUFWriter,
    planned: list[PlannedTensor],
    config: PreTrainedConfig,
    kind: Quantization,
    progress: Progress | None,
) -> list[str]:
    """Write header and tensors. Return the type of each."""
    import gguf
    import numpy as np

    layers = int(config.num_hidden_layers)
    head = next((t.name for t in planned if t.name == HEAD), EMBEDDING)
    types = [choose_type(t.name, t.shape, kind, layers, head) for t in planned]
    sizes = [stored_size(t.shape, name) for t, name in zip(planned, types, strict=True)]
    for tensor, name, size in zip(planned, types, sizes, strict=True):
        writer.add_tensor_info(
            tensor.name,
            tensor.shape,
            np.dtype(np.float32),
            size,
            raw_dtype=gguf.GGMLQuantizationType[name],
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    done = 0
    for tensor, name, size in zip(planned, types, sizes, strict=True):
        writer.write_tensor_data(quantize(tensor.make(), name))
        done += size
        if progress is not None:
            progress(done, sum(sizes))
    return types


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
