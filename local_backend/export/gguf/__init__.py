"""GGUF files of tuned models, for llama.cpp and Ollama."""

from __future__ import annotations

from local_backend.export.gguf.file import GgufSummary, write_gguf
from local_backend.export.gguf.modelfile import write_modelfile

__all__ = ["GgufSummary", "write_gguf", "write_modelfile"]
