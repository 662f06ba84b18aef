"""Write job files for small models, with their data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tiny
import yaml


def write_job_file(
    folder: Path,
    model: Path,
    *,
    name: str = "tiny",
    records: Sequence[Mapping[str, Any]] | int = 16,
    validation: Sequence[Mapping[str, Any]] = (),
    local: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    hyperparameters: Mapping[str, Any] | None = None,
    **more: Any,
) -> Path:
    """Write a cloudft.yaml into `folder` that trains the model, and its data; return its path."""
    records = tiny.pairs(records) if isinstance(records, int) else records
    tiny.write_jsonl(folder / "train.jsonl", records)
    files: dict[str, Any] = {"train": "train.jsonl"}
    if validation:
        tiny.write_jsonl(folder / "validation.jsonl", validation)
        files["validation"] = "validation.jsonl"
    parameters = {"epochCount": 2, "batchSize": 4, "learningRate": 0.01}
    spec = {
        "name": name,
        "base_model": str(model),
        "data": files | dict(data or {}),
        "hyperparameters": {}
        if "reinforcement" in more  # such a job has its own
        else parameters | {"learningRateWarmupSteps": 0} | dict(hyperparameters or {}),
        "local": {"device": "cpu", "dtype": "float32", "lora": {"r": 4, "alpha": 8}}
        | dict(local or {}),
        **more,
    }
    path = folder / "cloudft.yaml"
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    return path
