"""Stage the job file's data: write the canonical files that every backend trains on.

Same data and seed give the same bytes anywhere. A staged folder is named by the hash of its
content, so an edited source never meets a stale folder.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cloudft.data.checks.dataset_limits import DatasetLimits
from cloudft.data.staging import manifest as manifests
from cloudft.data.staging.collector import Collector
from cloudft.data.staging.manifest import load_manifest
from cloudft.errors import CheckFailed
from cloudft.storage.atomic_files import as_store_error, fsync_folder, make_private_folder
from cloudft.types import Finding, Manifest

if TYPE_CHECKING:
    from cloudft.spec.model import DataSpec

__all__ = ["StagedData", "load_manifest", "publish_files", "stage_data"]

TEMP_PREFIX = ".staging-"
ABANDONED_AFTER_S = 24 * 3600
FOLDER_NAME_LENGTH = 32
MAX_PUBLISH_TRIES = 5


@dataclass(frozen=True)
class StagedData:
    """Staged data: its folder, its manifest, and warnings.

    The manifest's sources are this staging's. The manifest in the folder may be of an earlier one
    that gave the same bytes.
    """

    folder: Path
    manifest: Manifest
    findings: tuple[Finding, ...]


def stage_data(  # noqa: PLR0913  # what determines the staged bytes, by name
    data: DataSpec,
    *,
    customization_type: str,
    format: str,
    seed: int,
    base_dir: Path,
    root: Path,
    progress: Callable[[int], None] | None = None,
    limits: DatasetLimits | None = None,
) -> StagedData:
    """Write the canonical files into `root/<manifest.sha256[:32]>`, whole or not at all.

    `progress` gets the number of records read so far. Raises CheckFailed with every finding
    when one is an error, StoreError when `root` can't be written.
    """
    collector = Collector(data, format, seed, base_dir, progress, limits)
    with as_store_error("the data can't be staged", root), _temporary(root) as folder:
        manifest = _collect(collector, folder, customization_type, format, seed)
        findings = collector.findings.all()
        if manifest is None:
            raise _check_failed(findings)
        _seal(folder, manifest)
        return StagedData(_publish(folder, root, manifest.sha256), manifest, findings)


def publish_files(root: Path, write: Callable[[Path], Manifest]) -> tuple[Path, Manifest]:
    """Stage the files that `write` puts into the folder that it gets; return folder and manifest.

    Raises StoreError when `root` can't be written.
    """
    with as_store_error("the data can't be staged", root), _temporary(root) as folder:
        manifest = write(folder)
        _seal(folder, manifest)
        return _publish(folder, root, manifest.sha256), manifest


def _collect(
    collector: Collector, folder: Path, customization_type: str, target: str, seed: int
) -> Manifest | None:
    files = collector.collect(folder)
    if files is None:
        return None
    return manifests.build_manifest(customization_type, target, seed, files, collector.sources)


def _check_failed(findings: tuple[Finding, ...]) -> CheckFailed:
    errors = [finding for finding in findings if finding.severity == "error"]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return CheckFailed(f"{errors[0].message}{more}", findings)


@contextmanager
def _temporary(root: Path) -> Iterator[Path]:
    """Make a folder in `root` and remove it afterwards. Also remove what killed processes left."""
    make_private_folder(root)
    for old in root.glob(TEMP_PREFIX + "*"):
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > ABANDONED_AFTER_S:
                shutil.rmtree(old)
    folder = Path(tempfile.mkdtemp(prefix=TEMP_PREFIX, dir=root))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _seal(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, remove all but the final files, and make them durable.

    Their owner alone can read them, and nobody can write them.
    """
    (folder / manifests.MANIFEST_NAME).write_bytes(manifests.dump_manifest(manifest))
    final = {manifests.MANIFEST_NAME, *(file.name for file in manifest.files.values())}
    for path in folder.iterdir():
        if path.name not in final:
            path.unlink()
            continue
        with path.open("rb") as handle:
            os.fsync(handle.fileno())
        path.chmod(0o400)
    fsync_folder(folder)


def _publish(folder: Path, root: Path, sha256: str) -> Path:
    """Give the folder its final name, and return that. An intact one of that name stays.

    Other processes may be staging the same data: the first rename wins, with the same bytes.
    """
    final = root / sha256[:FOLDER_NAME_LENGTH]
    for _ in range(MAX_PUBLISH_TRIES):
        try:
            folder.rename(final)
        except OSError as exc:
            if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        else:
            fsync_folder(root)
            return final
        if manifests.is_intact(final, sha256):
            return final
        _move_aside(final, folder)
    raise OSError(errno.EEXIST, "the folder is damaged and can't be replaced", str(final))


def _move_aside(damaged: Path, folder: Path) -> None:
    """Move a damaged folder aside; it is removed with the abandoned temporary ones."""
    aside = folder.with_name(f"{folder.name}-damaged")
    with suppress(FileNotFoundError):
        damaged.rename(aside)
    if aside.is_dir():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.unlink(missing_ok=True)
