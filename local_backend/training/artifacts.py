"""Write what a finished job leaves: Bedrock's output layout, with the model beside it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from local_backend.atomic_folders import atomic_folder
from local_backend.job_dir import (
    ARTIFACTS,
    DATA,
    MANIFEST,
    METRICS,
    MODEL,
    RESULT,
    JobDir,
    write_json,
)
from local_backend.models.load_model import LoadedModel, save_tuned_model
from local_backend.progress import Summary
from local_backend.settings import Settings
from local_backend.training.loss_curve import TRAIN, read_curve, write_csv_files

FILE_SETTINGS = ("data", "weights", "grader", "distillation")
"""Settings that are places on this machine: result.json has what follows from them."""


def write_artifacts(
    job_dir: JobDir,
    loaded: LoadedModel,
    weights: Mapping[str, torch.Tensor],
    summary: Summary,
    settings: Settings,
) -> None:
    """Write `artifacts/`, which appears complete or not at all.

    The model is the adapter (LoRA, QLoRA) or all weights (full), with the tokenizer and the chat
    template that it was trained with. `weights` are the trained ones. `result.json` holds the final
    numbers and every setting.
    """
    points = read_curve(job_dir / METRICS)
    last_loss = [p["loss"] for p in points if p["split"] == TRAIN][-1]
    tuned = summary.get("tuned")
    best = _validation_metrics(tuned) if isinstance(tuned, dict) else []
    result = {
        "trainingMetrics": {"trainingLoss": last_loss},
        "validationMetrics": best,
        "settings": {k: v for k, v in asdict(settings).items() if k not in FILE_SETTINGS},
        "summary": summary,
    }
    with atomic_folder(job_dir / ARTIFACTS, replace=True) as folder:
        write_csv_files(points, folder)
        save_tuned_model(loaded, settings, folder / MODEL, weights)
        shutil.copyfile(job_dir / DATA / MANIFEST, folder / MANIFEST)
        write_json(folder / RESULT, result)


def _validation_metrics(tuned: Mapping[str, Any]) -> list[dict[str, object]]:
    """Return the loss of the tuned weights: of all validation data, or of each of several sets.

    A job that learned from rewards has its reward in place of the loss.
    """
    sets = tuned.get("validationSets")
    name = "validationLoss" if "validationLoss" in tuned else "reward"
    if not sets:
        return [{name: tuned[name]}]
    return [{"validationSet": key, name: value} for key, value in sets.items()]
