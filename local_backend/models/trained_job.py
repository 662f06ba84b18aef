"""Turn the model that a job left into a model folder, from which a later job starts.

A job that trained all weights left such a folder. Of an adapter and its base, the merged model is
written once to the model cache in float32, so that whatever reads the later job's base model
(training, answers, export) reads the earlier job's adapter with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from local_backend.atomic_folders import atomic_folder, remove_leftovers
from local_backend.disk_full import raise_on_full_disk
from local_backend.errors import TrainerError
from local_backend.file_digest import sha256_file

if TYPE_CHECKING:
    from local_backend.job_dir import WeightSource

MERGE = 1
"""Version of the merge. Raise it when the merged folder would change."""
FULL = "full"
"""The method that leaves a whole model and no adapter."""


def model_folder(
    weights: WeightSource, cache: Path, locate: Callable[[str, Sequence[WeightSource]], str]
) -> Path:
    """Return the folder of the whole model that the job of `weights` left.

    `locate` finds the model that the job itself started from. Raise TrainerError where the files
    are not those that the later job was planned with.
    """
    folder = Path(weights["path"])
    _check_is_unchanged(weights, folder)
    if weights["method"] == FULL:
        return folder
    base = locate(weights["name"], weights["base"])
    merged = cache / f"{weights['job']}-{_merge_key(weights, base)}"
    return _merge_once(base, folder, merged, cache)


def folder_digest(folder: Path) -> str:
    """Return the SHA-256 of the names and contents of the files in a folder. Raise OSError."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        digest.update(f"{path.name}\0{sha256_file(path)}\n".encode())
    return digest.hexdigest()


def _check_is_unchanged(weights: WeightSource, folder: Path) -> None:
    remedy = "submit the later job again, or restore the files of the earlier one."
    try:
        found = folder_digest(folder)
    except OSError as error:
        raise TrainerError(
            f"The model of {weights['job']} can't be read: {error}", fix=remedy
        ) from error
    if found != weights["sha256"]:
        raise TrainerError(
            f"The model of {weights['job']} in {folder} has changed since this job was planned.",
            fix=remedy,
        )


def _merge_key(weights: WeightSource, base: str) -> str:
    """Return 12 hex digits that follow from the adapter, from its base, and from the merge."""
    status = [
        f"{path.name}:{path.stat().st_size}:{path.stat().st_mtime_ns}"
        for path in sorted(Path(base).glob("*"))
        if path.suffix in {".safetensors", ".bin", ".json"}
    ]
    key = "\n".join([str(MERGE), weights["sha256"], base, *status])
    return hashlib.sha256(key.encode()).hexdigest()[:12]


def _merge_once(base: str, adapter: Path, merged: Path, cache: Path) -> Path:
    from local_backend.models.weights import DISK_REMEDY, hold_folder_lock

    with hold_folder_lock(cache):
        remove_leftovers(cache)
        if not (merged / "config.json").is_file():
            with (
                raise_on_full_disk("The merged model", cache, DISK_REMEDY),
                atomic_folder(merged, replace=True) as temporary,
            ):
                _merge(base, adapter, temporary)
    return merged


def _merge(base: str, adapter: Path, to: Path) -> None:
    """Write `base` with the adapter in its weights, and the adapter's tokenizer, to `to`.

    Raise TrainerError if what was written is not the tuned model.
    """
    # Here, because they import torch: a located folder needs none.
    import torch

    from local_backend.models import lora, merge_proof
    from local_backend.models.load_model import load_model
    from local_backend.models.load_tokenizer import load_tokenizer
    from local_backend.models.portable_config import (
        copy_sentencepiece_model,
        write_portable_config,
    )

    print(f"merging the adapter {adapter} into its base, once ...", flush=True)
    loaded = load_model(base, torch.float32, torch.device("cpu"))
    lora.load_adapter(loaded.model, adapter)
    merge_proof.merge_adapters(loaded.model)
    tokenizer = load_tokenizer(str(adapter))[0]
    loaded.model.save_pretrained(to)
    tokenizer.save_pretrained(to)
    write_portable_config(to, tokenizer, loaded.stop_ids)
    copy_sentencepiece_model(base, to)
    merge_proof.check_saved_model(loaded.model, to)
