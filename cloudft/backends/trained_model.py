"""Which model the local trainer trains for a job, here or in a container, and its size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cloudft import catalogue
from cloudft.errors import BadDocument
from cloudft.spec.load import LoadedJob
from cloudft.storage.documents import decode


def trained_model(job: LoadedJob) -> catalogue.Model | None:
    """Return local.model, or a base model with open weights; None where the weights are closed."""
    if job.spec.local.model is not None:
        return catalogue.find_model(job.spec.local.model, base_dir=job.base_dir)
    return job.model if job.model.is_open_weight else None


def count_parameters(model: catalogue.Model) -> int | None:
    """Return the number of parameters: the catalogue's, or by the weight files; None if unknown."""
    if model.parameters:
        return model.parameters
    for folder in model.folders:
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        if size:
            return size // (4 if _is_float32(folder) else 2)
    return None


def _is_float32(folder: Path) -> bool:
    path = folder / "config.json"
    try:
        config = decode(path.read_bytes(), dict[str, Any], file=path)
    except (OSError, BadDocument):
        return False
    return bool((config.get("dtype") or config.get("torch_dtype")) == "float32")
