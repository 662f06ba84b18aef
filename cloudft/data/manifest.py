"""The manifest of staged data: made, written, read back, held against the files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cloudft.data.tokens import TOKEN_RULE
from cloudft.errors import StoreError
from cloudft.types import DataFile, Manifest, Source, to_json

NAME = "manifest.json"
VERSION = 1


def make(
    customization_type: str,
    target: str,
    seed: int,
    files: Mapping[str, DataFile],
    sources: Sequence[Source],
) -> Manifest:
    """The manifest of these files. Its sha256 depends on no path, time or machine."""
    hashes = {role: file.sha256 for role, file in files.items()}
    return Manifest(
        sha256=_digest(customization_type, target, hashes),
        customization_type=customization_type,
        format=target,
        seed=seed,
        files=dict(files),
        sources=tuple(sources),
        token_rule=TOKEN_RULE,
        version=VERSION,
    )


def _digest(customization_type: str, target: str, hashes: Mapping[str, str]) -> str:
    import orjson

    content = {
        "version": VERSION,
        "customization_type": customization_type,
        "format": target,
        "files": dict(hashes),
    }
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()


def dump(manifest: Manifest) -> bytes:
    """The manifest as JSON, camelCase as in the contract."""
    import orjson

    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    return orjson.dumps(to_json(manifest), option=options)


def load_manifest(path: Path) -> Manifest:
    """The manifest in `path` (a file, or a folder that has one).

    Raises StoreError when it can't be read, is no manifest, or contradicts itself.
    """
    import orjson

    path = path / NAME if path.is_dir() else path
    try:
        manifest = from_json(orjson.loads(path.read_bytes()))
        hashes = {role: file.sha256 for role, file in manifest.files.items()}
        if _digest(manifest.customization_type, manifest.format, hashes) != manifest.sha256:
            raise ValueError("its sha256 does not fit its files")
        return manifest
    except OSError as exc:
        reason = exc.strerror or str(exc)
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        reason = f"no manifest ({type(exc).__name__}: {exc})"
    fix = "stage the data again"
    raise StoreError(f"the manifest can't be read: {reason}", file=str(path), fix=fix)


def from_json(data: Mapping[str, Any]) -> Manifest:
    """A manifest from its JSON."""
    return Manifest(
        sha256=data["sha256"],
        customization_type=data["customizationType"],
        format=data["format"],
        seed=data["seed"],
        files={role: DataFile(**file) for role, file in data["files"].items()},
        sources=tuple(Source(**source) for source in data["sources"]),
        token_rule=data["tokenRule"],
        version=data["version"],
    )


def is_whole(folder: Path, sha256: str) -> bool:
    """True when `folder` holds the staged data of that manifest, byte for byte."""
    try:
        manifest = load_manifest(folder)
        found = {f.name: _file_sha256(folder / f.name) for f in manifest.files.values()}
    except (StoreError, OSError):
        return False
    wanted = {f.name: f.sha256 for f in manifest.files.values()}
    return manifest.sha256 == sha256 and found == wanted


def _file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(1024 * 1024):
            digest.update(block)
    return digest.hexdigest()
