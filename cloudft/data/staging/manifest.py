"""Build, write and read the manifest of staged data, and compare it with the files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from cloudft.data.token_estimate import TOKEN_ESTIMATE_RULE
from cloudft.errors import BadDocument, StoreError
from cloudft.storage.documents import Count, FileName, Sha256, convert, decode
from cloudft.types import Manifest, ManifestSource, StagedFile, to_json

MANIFEST_NAME = "manifest.json"
MANIFEST_VERSION = 1


def build_manifest(
    customization_type: str,
    target: str,
    seed: int,
    files: Mapping[str, StagedFile],
    sources: Sequence[ManifestSource],
) -> Manifest:
    """Return the manifest of these files. Its sha256 depends on no path, time or machine."""
    hashes = {role: file.sha256 for role, file in files.items()}
    return Manifest(
        sha256=_digest(customization_type, target, hashes),
        customization_type=customization_type,
        format=target,
        seed=seed,
        files=dict(files),
        sources=tuple(sources),
        token_rule=TOKEN_ESTIMATE_RULE,
        version=MANIFEST_VERSION,
    )


def _digest(customization_type: str, target: str, hashes: Mapping[str, str]) -> str:
    import orjson

    content = {
        "version": MANIFEST_VERSION,
        "customization_type": customization_type,
        "format": target,
        "files": dict(hashes),
    }
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()


def dump_manifest(manifest: Manifest) -> bytes:
    """Return the manifest as JSON, with camelCase keys as in the contract."""
    import orjson

    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    return orjson.dumps(to_json(manifest), option=options)


def load_manifest(path: Path) -> Manifest:
    """Read the manifest in `path` (a file, or a folder that has one).

    Raises StoreError when it can't be read, is no manifest, or does not fit its own sha256.
    """
    path = path / MANIFEST_NAME if path.is_dir() else path
    fix = "stage the data again"
    try:
        return _of(
            decode(path.read_bytes(), _Document, file=path, versions=(MANIFEST_VERSION,)), path
        )
    except OSError as exc:
        reason = exc.strerror or str(exc)
    except BadDocument as error:
        place = f" ({error.field})" if error.field else ""
        reason = f"no manifest ({error.message}{place})"
    raise StoreError(f"the manifest can't be read: {reason}", file=str(path), fix=fix)


def parse_manifest(data: Mapping[str, object], file: str | Path = MANIFEST_NAME) -> Manifest:
    """Return a manifest from its JSON, which was read from `file`. Raises BadDocument."""
    return _of(convert(data, _Document, file=file), file)


class _File(msgspec.Struct):
    records: Count
    characters: Count
    tokens: Count
    name: FileName
    sha256: Sha256
    bytes: Count


class _Source(msgspec.Struct, rename="camel"):
    role: str
    path: str
    sha256: str
    bytes: Count
    records: Count
    shape: str
    read_as: str = ""
    evidence: str = ""
    matched: Count = 0
    left_out: tuple[str, ...] = ()


class _Document(msgspec.Struct, rename="camel"):
    sha256: Sha256
    customization_type: str
    format: str
    seed: int
    files: dict[str, _File]
    token_rule: str
    sources: tuple[_Source, ...] = ()
    version: int = MANIFEST_VERSION


def _of(found: _Document, file: str | Path) -> Manifest:
    hashes = {role: one.sha256 for role, one in found.files.items()}
    if _digest(found.customization_type, found.format, hashes) != found.sha256:
        raise BadDocument(
            f"{Path(file).name} is damaged: its sha256 does not fit its files",
            file=str(file),
            field="sha256",
            fix="restore it from a backup or remove it.",
        )
    return Manifest(
        sha256=found.sha256,
        customization_type=found.customization_type,
        format=found.format,
        seed=found.seed,
        files={role: StagedFile(**msgspec.structs.asdict(f)) for role, f in found.files.items()},
        sources=tuple(ManifestSource(**msgspec.structs.asdict(source)) for source in found.sources),
        token_rule=found.token_rule,
        version=found.version,
    )


def is_intact(folder: Path, sha256: str) -> bool:
    """Return whether `folder` holds the staged data of that manifest, byte for byte."""
    try:
        manifest = load_manifest(folder)
        actual = {f.name: _file_sha256(folder / f.name) for f in manifest.files.values()}
    except (StoreError, OSError):
        return False
    expected = {f.name: f.sha256 for f in manifest.files.values()}
    return manifest.sha256 == sha256 and actual == expected


def _file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(1024 * 1024):
            digest.update(block)
    return digest.hexdigest()
