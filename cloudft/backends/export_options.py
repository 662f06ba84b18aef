"""What an export is to be: format, runtime, number format.

The names are the trainer's (local_backend/export/options.py; a test compares the two).
"""

from __future__ import annotations

from dataclasses import dataclass

from cloudft.errors import UsageError

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
QUANTIZATIONS = (
    *("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1"),
    *("q4_k_m", "q5_k_m", "q6_k"),
)
"""How a GGUF file can hold its weights."""
DEFAULT_DTYPE = "float32"
DEFAULT_QUANTIZATION = "f16"
"""How a GGUF file holds its weights unless something else is named."""
PROOF = "export.json"
"""The file of an export that says what it was made from, and how it was compared."""


@dataclass(frozen=True)
class ExportOptions:
    """How a model is written, and for what.

    `runtime` is the program that shall run it; None where none is named. `quantization` is that of
    a GGUF file. `context` limits the tokens of prompt and answer. `base` is what an adapter's
    folder names as its base: a hub id or a folder, where the adapter will be used.
    """

    format: str = "merged"
    runtime: str | None = None
    dtype: str = DEFAULT_DTYPE
    quantization: str = DEFAULT_QUANTIZATION
    context: int | None = None
    base: str | None = None


def choose_export(
    runtime: str | None,
    form: str | None,
    *,
    dtype: str | None = None,
    quantization: str | None = None,
    context: int | None = None,
    base: str | None = None,
) -> ExportOptions:
    """Return the options for what was named; the runtime implies the format.

    Raise UsageError for a format that the runtime does not read, and for what has no meaning in
    the format.
    """
    readable = RUNTIME_FORMATS[runtime] if runtime else FORMATS
    chosen = form or readable[0]
    if chosen not in readable:
        raise UsageError(
            f"{runtime} does not read the format {chosen}",
            fix=f"leave --format out, or use --format {' or '.join(readable)}.",
        )
    if dtype and chosen == "gguf":
        raise UsageError(
            "--dtype has no meaning for a GGUF file",
            fix="use --quantize f32, f16 or bf16, or a shorter one.",
        )
    if quantization and chosen != "gguf":
        others = [name for name, formats in RUNTIME_FORMATS.items() if "gguf" in formats]
        reads = "add --format gguf" if "gguf" in readable else f"use --for {' or '.join(others)}"
        raise UsageError(
            f"--quantize is for GGUF files, and the format is {chosen}",
            fix=f"{reads}, or --dtype float16 or bfloat16 instead.",
        )
    if base and chosen != "adapter":
        fix = "add --format adapter." if "adapter" in readable else "leave out --base."
        raise UsageError(f"--base is for adapters, and the format is {chosen}", fix=fix)
    return ExportOptions(
        chosen,
        runtime,
        dtype or DEFAULT_DTYPE,
        quantization or DEFAULT_QUANTIZATION,
        context,
        base,
    )
