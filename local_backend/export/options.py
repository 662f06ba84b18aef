"""What an export is to be: the options of `python -m local_backend.export`."""

from __future__ import annotations

from dataclasses import dataclass

FORMATS = ("merged", "adapter", "gguf", "mlx")
RUNTIME_FORMATS = {
    "transformers": ("merged", "adapter"),
    "vllm": ("merged", "adapter"),
    "llama.cpp": ("gguf",),
    "ollama": ("gguf",),
    "mlx": ("mlx",),
    "onnxruntime": ("merged",),
    "openvino": ("merged",),
}
"""The formats that each runtime reads; the first one is written unless another is named."""
DTYPES = ("float32", "float16", "bfloat16")
DEFAULT_QUANTIZATION = "f16"
"""How a GGUF file holds its weights unless something else is named."""
MLX_BITS = {"q4": 4, "q8": 8}
"""How mlx's folder can hold its weights, and the bits of each."""


@dataclass(frozen=True)
class ExportOptions:
    """How a model is written, and for what.

    `runtime` is the program that shall run it; None where none is named. `quantization` is that of
    a GGUF file, or one of `MLX_BITS`. `context` limits the tokens of prompt and answer. `base` is
    what an adapter's folder names as its base: a hub id or a folder, where the adapter will be
    used.
    """

    format: str = "merged"
    runtime: str | None = None
    dtype: str = "float32"
    quantization: str = DEFAULT_QUANTIZATION
    context: int | None = None
    base: str | None = None
