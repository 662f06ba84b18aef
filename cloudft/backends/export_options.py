"""What an export is to be: format, runtime, number format.

The names are the trainer's (local_backend/export/options.py; a test compares the two).
"""

from __future__ import annotations

from collections.abc import Sequence
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
MLX_QUANTIZATIONS = ("q4", "q8")
"""How mlx-lm's folder can hold them, other than in the format of `--dtype`."""
DEFAULT_DTYPE = "float32"
QUANTIZED_DTYPE = "float16"
"""Number format of what mlx-lm's quantized folder keeps, and of its scales."""
DEFAULT_QUANTIZATION = "f16"
"""How a GGUF file holds its weights unless something else is named."""
DTYPE_NAMES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
"""GGUF's names of the number formats."""
PROOF = "export.json"
"""The file of an export that says what it was made from, and how it was compared."""


@dataclass(frozen=True)
class ExportOptions:
    """How a model is written, and for what.

    `runtime` is the program that shall run it; None where none is named. `quantization` is that of
    a GGUF file or of mlx-lm's folder. `context` limits the tokens of prompt and answer. `base` is
    what an adapter's folder names as its base: a hub id or a folder, where the adapter will be
    used.
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
    if quantization:
        check_quantization(chosen, quantization, readable)
    if base and chosen != "adapter":
        fix = "add --format adapter." if "adapter" in readable else "leave out --base."
        raise UsageError(f"--base is for adapters, and the format is {chosen}", fix=fix)
    return ExportOptions(
        chosen,
        runtime,
        dtype or (QUANTIZED_DTYPE if quantization and chosen == "mlx" else DEFAULT_DTYPE),
        quantization or DEFAULT_QUANTIZATION,
        context,
        base,
    )


def check_quantization(form: str, quantization: str, readable: Sequence[str]) -> None:
    """Raise UsageError for a quantization that a format does not have.

    `readable` are the formats that the named runtime reads.
    """
    known = {"gguf": QUANTIZATIONS, "mlx": MLX_QUANTIZATIONS}.get(form)
    if known is None:
        better = "mlx" if quantization in MLX_QUANTIZATIONS else "gguf"
        others = [name for name, formats in RUNTIME_FORMATS.items() if better in formats]
        reads = f"add --format {better}" if better in readable else ""
        reads = reads or f"use --for {' or '.join(others)}"
        raise UsageError(
            f"--quantize is for GGUF files and mlx, and the format is {form}",
            fix=f"{reads}, or --dtype float16 or bfloat16 instead.",
        )
    if quantization not in known:
        nearest = next((name for name in known if name[:2] == quantization[:2]), known[0])
        fix = f"use --quantize {nearest}, or another of {', '.join(known)}."
        if form == "mlx" and quantization in DTYPE_NAMES:
            fix = f"use --dtype {DTYPE_NAMES[quantization]}, or --quantize {' or '.join(known)}."
        raise UsageError(f"the format {form} has no quantization {quantization}", fix=fix)
