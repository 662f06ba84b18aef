"""download: copy a finished job's artifacts into a folder."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from cloudft.cli.command import command
from cloudft.cli.jobs import open_job
from cloudft.cli.options import Console, aws_options, console_options, job_argument
from cloudft.errors import UsageError


@command(
    "download",
    epilog="\b\nExamples:\n  cloudft download ticket-router artifacts\n"
    "  cloudft download - artifacts --output json",
)
@job_argument
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@aws_options
@console_options
def download_command(reference: str, folder: Path, console: Console) -> int:
    """Copy the artifacts of a finished job into DIR: model, loss curves, manifest, result.

    The folders in DIR are the same for every backend. DIR must be new or empty. It appears
    complete or not at all: after Ctrl-C run the same command again.
    """
    from cloudft.cli.progress import byte_counter

    record, backend, _ = open_job(reference)
    with _new_folder(folder) as copy, byte_counter(console, "copied") as on_copied:
        backend.download_artifacts(record.backend_job_id or record.id, copy, on_copied)
        files = sorted(path for path in copy.rglob("*") if path.is_file())
        names = [path.relative_to(copy).as_posix() for path in files]
        size = sum(path.stat().st_size for path in files)
    text = f"{folder}: {len(names)} files, {size / 1e6:,.1f} MB"
    console.print_result({"id": record.id, "path": folder, "files": names, "bytes": size}, text)
    return 0


@contextlib.contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Yield a new path that becomes `folder` at the end; nothing remains of it after an error.

    Raise UsageError when `folder` exists and holds something, StoreError when it can't be written.
    """
    from cloudft.storage.atomic_files import as_store_error

    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UsageError(
            f"{folder} exists already and is not an empty folder",
            file=str(folder),
            fix="name a new folder; nothing was copied.",
        )
    with as_store_error(f"{folder} can't be written", folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Beside the target, so that the rename below stays on one file system.
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield temporary / "copy"
        with as_store_error(f"{folder} can't be written", folder):
            (temporary / "copy").rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
