"""What an export is to be: format, runtime, number format."""

from __future__ import annotations

from dataclasses import dataclass

DTYPES = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class ExportOptions:
    """How a model is written, and for what.

    `runtime` is the program that shall run it; None where none is named. `quantization` is that of
    a GGUF file.
    """

    format: str = "merged"
    runtime: str | None = None
    dtype: str = "float32"
    quantization: str | None = None
