"""Check settings of `local` that are valid numbers and can't work with this job or machine."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from cloudft import catalogue
from cloudft.backends.local.request import resolve_hyperparameters
from cloudft.backends.trained_model import trained_model
from cloudft.errors import BadDocument
from cloudft.spec.load import LoadedJob
from cloudft.storage.documents import decode
from cloudft.types import Finding

MAX_WIDTH = 65_536
"""No layer of a published model is as wide: the bound where nothing is known of the model."""
MAX_LORA_SCALE = 1_000.0
"""Highest alpha / r. Published recipes have 0.5 to 64; above this the first step diverges."""
FEW_PROCESSES = 8
"""So many trainers start on any machine, for a try; more need a processor each."""


class _Widths(msgspec.Struct):
    """The names that model families use in config.json for the hidden size."""

    hidden_size: int | None = None
    n_embd: int | None = None
    d_model: int | None = None
    dim: int | None = None
    text_config: _Widths | None = None


def check_limits(job: LoadedJob) -> Iterator[Finding]:
    """Yield an error for every such setting, with its field."""
    local = job.spec.local
    batch = int(resolve_hyperparameters(job)["batchSize"])
    if isinstance(local.processes, int) and local.processes > batch:
        yield _error(
            job,
            "local.processes",
            f"local.processes is {local.processes}, and a batch has {batch} records:"
            " some processes would be idle",
            f"set it to {batch} or less, or raise batchSize.",
        )
    elif isinstance(local.processes, int) and local.processes > max(FEW_PROCESSES, _processors()):
        yield _error(
            job,
            "local.processes",
            f"local.processes is {local.processes}, and this machine has {_processors()}"
            " processors",
            "set it to auto: one for each NVIDIA GPU.",
        )
    if local.method == "full":
        return
    widest = _widest(job)
    if local.lora.r > widest:
        yield _error(
            job,
            "local.lora.r",
            f"local.lora.r is {local.lora.r}, and no layer of the model is wider than {widest}",
            f"set it to {min(widest, 64)} or less.",
        )
    elif local.lora.alpha / local.lora.r > MAX_LORA_SCALE:
        yield _error(
            job,
            "local.lora.alpha",
            f"local.lora.alpha is {local.lora.alpha:g}: updates would be multiplied by"
            f" {local.lora.alpha / local.lora.r:g} (alpha / r)",
            f"set it to {2 * local.lora.r}, twice local.lora.r.",
        )


def _error(job: LoadedJob, field: str, message: str, fix: str) -> Finding:
    path = str(job.path) if job.path else None
    return Finding("error", "OutOfRange", message, fix, path, job.line_of(field), field)


def _processors() -> int:
    return os.cpu_count() or 1


def _widest(job: LoadedJob) -> int:
    """Return the largest width that a layer of the model can have, as far as it is known."""
    model = trained_model(job)
    if model is None:
        return MAX_WIDTH
    for folder in model.folders:
        width = _width(folder / "config.json")
        if width:
            return width
    return _widest_by_parameters(model)


def _widest_by_parameters(model: catalogue.Model) -> int:
    """Return a bound of the width: a layer of width N has at least N * N weights."""
    return math.isqrt(model.parameters) if model.parameters else MAX_WIDTH


def _width(config: Path) -> int | None:
    try:
        found: Any = decode(config.read_bytes(), _Widths, file=config)
    except (OSError, BadDocument):  # the model's own findings tell it
        return None
    for words in (found, found.text_config):
        if words is not None:
            width = words.hidden_size or words.n_embd or words.d_model or words.dim
            if width:
                return int(width)
    return None
