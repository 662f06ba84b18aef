"""What an exported model was made from, and what its folder holds: digests and versions."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypedDict

from local_backend.export.tuned_model import TunedModel
from local_backend.file_digest import sha256_file
from local_backend.models.trained_job import folder_digest

PACKAGES = ("cloudft", "torch", "transformers", "safetensors", "tokenizers")


class Origin(TypedDict):
    """The model that training began from and what training wrote, each by its files' SHA-256.

    `baseSha256` is None for weights that are not in a folder of this machine.
    """

    model: str
    baseSha256: str | None
    tunedSha256: str


def find_origin(tuned: TunedModel) -> Origin:
    """Return what an export is made from."""
    return {
        "model": tuned.settings.model_name,
        "baseSha256": _base_digest(tuned.base),
        "tunedSha256": folder_digest(tuned.folder),
    }


def _base_digest(base: str) -> str | None:
    from transformers.utils.hub import cached_file

    if Path(base).is_dir():
        return folder_digest(Path(base))
    config = cached_file(base, "config.json", local_files_only=True)
    return folder_digest(Path(config).parent) if config else None


def file_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, by its path in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256_file(path) for path in files}


def library_versions() -> dict[str, str]:
    """Return the versions of what wrote an export."""
    found = {"python": sys.version.split()[0]}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a checkout that is not installed
            continue
    return found
