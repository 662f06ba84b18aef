"""Write a tuned model as a folder with one GGUF file, for llama.cpp and Ollama.

The file is made of the merged float32 model, which is written beside it first, proven, and removed.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from local_backend.export.merged import write_merged
from local_backend.export.options import ExportOptions
from local_backend.export.proof import Proof
from local_backend.export.tuned_model import TunedModel

if TYPE_CHECKING:
    from local_backend.export.gguf import GgufSummary

GGUF_FILE = "model.gguf"
MODELFILE = "Modelfile"
MERGED = ".merged"


class GgufProof(Proof):
    """The proof of the merged model, and what the GGUF file that was made of it holds."""

    quantization: str
    gguf: GgufSummary


def write_gguf_folder(tuned: TunedModel, folder: Path, options: ExportOptions) -> GgufProof:
    """Write the GGUF file into `folder`; return the proof of what it was made of.

    Raise TrainerError.
    """
    from local_backend.export.gguf import write_gguf, write_modelfile

    # The name of the folder becomes the model's in the file.
    merged = folder / MERGED / model_name(tuned)
    merged.mkdir(parents=True)
    proof = write_merged(tuned, merged, replace(options, format="merged", dtype="float32"))
    summary = write_gguf(merged, folder / GGUF_FILE, options.quantization)
    if options.runtime == "ollama":
        (folder / MODELFILE).write_text(write_modelfile(merged, GGUF_FILE), encoding="utf-8")
    shutil.rmtree(folder / MERGED)
    return {**proof, "format": "gguf", "quantization": options.quantization, "gguf": summary}


def model_name(tuned: TunedModel) -> str:
    """Return the tuned model's name, of characters that a file name may have."""
    base = Path(tuned.settings.model_name).name
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', base).strip('.')[:80] or 'model'}-tuned"
