"""Check by its config.json whether a model can be written as a GGUF file. No weights are read."""

from __future__ import annotations

from typing import Any

from local_backend.errors import TrainerError
from local_backend.export.features import ModelFiles, rope_types


def check_gguf(files: ModelFiles, quantization: str) -> None:
    """Raise TrainerError for a model that llama.cpp would compute otherwise, by its config.json.

    The same for a quantization that can't be written.
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
    check_settings(AutoConfig.for_model(files.family, **settings), family)
    others = sorted(rope_types(files.text_config).keys() - family.rope_types)
    if others:
        raise TrainerError(
            f"llama.cpp's {family.architecture!r} does not apply rope scaling of type"
            f" {', '.join(others)}.",
            fix=OTHER_RUNTIME,
        )
