"""Locate a model's weights: in a Python package, in a folder, of a job, or on the model hub.

A GGUF file is dequantized once into a folder of safetensors in the model cache
(`CLOUDFT_MODEL_CACHE`), because reading it takes twenty seconds each time and that folder a tenth.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from local_backend.atomic_folders import atomic_folder, remove_leftovers
from local_backend.disk_full import raise_on_full_disk
from local_backend.errors import TrainerError
from local_backend.job_dir import WeightSource
from local_backend.models.trained_job import FULL, model_folder

CONVERSION = 2
"""Version of the conversion. Raise it when the converted folder would change, so that an old one is
not used. Version 1 accepted files of which a part was missing.
"""
DISK_REMEDY = "free some space there, or set CLOUDFT_MODEL_CACHE to a folder on another disk."
OLD_TEMPORARY_FOLDER = ".*-????????????.????????"
"""Half-written folders as conversion 1 named them."""


def model_cache() -> Path:
    """Return the folder for converted weights."""
    return Path(os.environ.get("CLOUDFT_MODEL_CACHE") or "~/.cloudft/models").expanduser()


def locate_weights(name: str, weights: Sequence[WeightSource]) -> str:
    """Return the first of `weights` that is available: a folder for `from_pretrained`, or a hub id.

    Raise TrainerError, with each place that was tried, if none is.
    """
    tried = []
    for candidate in weights:
        if candidate["kind"] == "package":
            folder = find_package_folder(candidate["module"])
            if folder is not None and (folder / candidate["file"]).is_file():
                return str(convert_once(folder / candidate["file"]))
            tried.append(f"the package {candidate['distribution']} (not installed)")
        elif candidate["kind"] == "folder":
            folder = Path(candidate["path"])
            if folder.is_dir():
                return str(as_safetensors_folder(folder))
            tried.append(f"the folder {folder} (missing)")
        elif candidate["kind"] == "job":
            return str(model_folder(candidate, model_cache(), locate_weights))
        else:
            return str(candidate["hub_id"])
    raise TrainerError(
        f"The weights of {name} were not found in {'; nor in '.join(tried)}.",
        fix="see `cloudft models` for where each model comes from.",
    )


def find_model_folder(weights: Sequence[WeightSource]) -> Path | None:
    """Return the folder that `locate_weights` would return at once; None where it has more to do.

    More is a download, a conversion, or a merge.
    """
    for candidate in weights:
        if candidate["kind"] == "package":
            folder = find_package_folder(candidate["module"])
            if folder is not None and (folder / candidate["file"]).is_file():
                converted = model_cache() / _folder_name(folder / candidate["file"], CONVERSION)
                return converted if (converted / "config.json").is_file() else None
        elif candidate["kind"] == "folder":
            folder = Path(candidate["path"])
            if folder.is_dir():
                return folder
        else:
            return None
    return None


def locate_tokenizer(name: str, weights: Sequence[WeightSource]) -> tuple[str, str]:
    """Return where the model's tokenizer and where its config.json are, as `locate_weights` does.

    An adapter has the tokenizer beside it, so neither needs the merged model.
    """
    first = weights[0] if weights else None
    if first is None or first["kind"] != "job" or first["method"] == FULL:
        source = locate_weights(name, weights)
        return source, source
    return first["path"], locate_tokenizer(first["name"], first["base"])[1]


def find_package_folder(module: str) -> Path | None:
    """Return the folder of a package, without importing it; None if it is not installed."""
    spec = importlib.util.find_spec(module)
    folders = list(spec.submodule_search_locations or []) if spec else []
    return Path(folders[0]) if folders else None


def as_safetensors_folder(folder: Path) -> Path:
    """Return `folder` if it holds safetensors or .bin files, or the conversion of its GGUF file.

    Raise TrainerError if it holds neither.
    """
    if any(folder.glob("*.safetensors")) or any(folder.glob("*.bin")):
        return folder
    files = sorted(folder.glob("*.gguf"))
    if len(files) == 1:
        return convert_once(files[0])
    raise TrainerError(
        f"{folder} holds no model weights (*.safetensors, *.bin or one *.gguf).",
        fix="use a folder written by `save_pretrained`.",
    )


def convert_once(gguf: Path) -> Path:
    """Return the safetensors folder for `gguf`; convert this very file if that was not done yet."""
    cache = model_cache()
    folder = cache / _folder_name(gguf, CONVERSION)
    with hold_folder_lock(cache):
        _remove_old_conversions(cache, gguf)
        if not (folder / "config.json").is_file():
            with (
                raise_on_full_disk("The converted model", cache, DISK_REMEDY),
                atomic_folder(folder, replace=True) as temporary,
            ):
                convert_gguf(gguf, temporary)
    return folder


def _folder_name(gguf: Path, conversion: int) -> str:
    # Size and time stand for the content, which would take seconds to hash.
    status = gguf.stat()
    key = f"{conversion}:{gguf.resolve()}:{status.st_size}:{status.st_mtime_ns}"
    return f"{gguf.stem}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def _remove_old_conversions(cache: Path, gguf: Path) -> None:
    """Remove what killed conversions left, and earlier conversions of this file.

    Only the holder of the cache's lock writes here.
    """
    remove_leftovers(cache)
    for old in cache.glob(OLD_TEMPORARY_FOLDER):
        shutil.rmtree(old, ignore_errors=True)
    for conversion in range(1, CONVERSION):
        shutil.rmtree(cache / _folder_name(gguf, conversion), ignore_errors=True)


def convert_gguf(gguf: Path, to: Path) -> None:
    """Dequantize `gguf` to float32 safetensors, with tokenizer and chat template.

    Raise TrainerError for a file that is not the whole model.
    """
    # Here, because they import torch: a located folder needs none.
    from transformers import AutoTokenizer

    from local_backend.models.pretrained import UNREADABLE_ERRORS, load_gguf, unreadable_error

    print(f"converting {gguf.name} to safetensors, once ...", flush=True)
    try:
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    except UNREADABLE_ERRORS as error:
        raise unreadable_error(str(gguf), error) from error
    model = load_gguf(gguf)
    # The weights are plain tensors now; the mark of their origin would make a reload fail.
    setattr(model, "hf_quantizer", None)  # noqa: B010  # mypy takes it for a submodule
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(to)
    tokenizer.save_pretrained(to)


@contextlib.contextmanager
def hold_folder_lock(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on `folder`, which is released when the process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
