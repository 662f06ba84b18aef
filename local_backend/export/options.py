"""What an export is to be: the options of `python -m local_backend.export`."""

from __future__ import annotations

from dataclasses import dataclass

FORMATS = ("merged",)
DTYPES = ("bfloat16", "float16", "float32")


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
