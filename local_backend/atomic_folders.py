"""Atomic folder writes: a folder appears complete or not at all.

A folder is written under a hidden name beside its final one and renamed at the end. Its writer
holds a lock (flock) on it, which is released when the process ends. So an unlocked hidden folder
was left by a killed process, and the next writer beside it removes it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

TEMPORARY_MARK = ".cloudft-"
"""Part of the name of every folder that is being written; no other folder has it."""


@contextlib.contextmanager
def atomic_folder(final: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder that is renamed to `final` on success and removed on error.

    With `replace`, an existing `final` is replaced. Without it, only an empty folder can be
    replaced (rename(2) guarantees this). Raise FileExistsError when anything else has appeared
    there.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(final.parent)
    temporary, lock = _create_locked(final)
    try:
        yield temporary
        _apply_folder_mode(temporary)
        sync_files(temporary)
        if replace:
            _move_aside(final)
        _rename_into_place(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        os.close(lock)
    # The replaced folder, which is removed only now: a crash before this line leaves either the old
    # folder or the new one under the final name, apart from the moment between two renames.
    if replace:
        remove_leftovers(final.parent)
    sync_folder(final.parent)


def remove_leftovers(parent: Path) -> None:
    """Remove the half-written folders in `parent` whose writers are gone."""
    for old in parent.glob(f".*{TEMPORARY_MARK}*"):
        lock = _lock(old, wait=False)
        if lock is not None:
            shutil.rmtree(old, ignore_errors=True)
            os.close(lock)


def _create_locked(final: Path) -> tuple[Path, int]:
    """Create a new folder beside `final`. Return it with the descriptor that holds its lock."""
    while True:
        folder = final.parent / _temporary_name(final)
        folder.mkdir()
        lock = _lock(folder, wait=True)
        # Between the two lines above, another process may have removed it as a leftover.
        if lock is not None and folder.is_dir():
            return folder, lock
        if lock is not None:
            os.close(lock)


def _temporary_name(final: Path) -> str:
    return f".{final.name}{TEMPORARY_MARK}{secrets.token_hex(4)}"


def _lock(folder: Path, *, wait: bool) -> int | None:
    """Return a descriptor that locks `folder`; None if it is gone or another process locks it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        # NFS can't lock folders. Write to it all the same; nobody removes it as a leftover.
        if wait:
            return descriptor
        os.close(descriptor)
        return None
    return descriptor


def _move_aside(final: Path) -> None:
    """Make room at `final`. An existing folder becomes a leftover, to be removed later."""
    with contextlib.suppress(FileNotFoundError):
        if final.is_dir() and not final.is_symlink():
            final.rename(final.parent / _temporary_name(final))
        else:
            final.unlink()


def remove_path(path: Path) -> None:
    """Remove a folder with its content, or the file in its place. Raise OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _rename_into_place(temporary: Path, final: Path) -> None:
    try:
        temporary.rename(final)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final)) from error


def _apply_folder_mode(folder: Path) -> None:
    """Give files the mode that the umask allows, as the folder has it: safetensors (0.8) writes
    0600.

    Everybody who may use a model's folder must be able to read its weights.
    """
    mode = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)


def sync_files(folder: Path) -> None:
    """Make every file below `folder` durable."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        else:
            sync_folder(path)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Make renames and links in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
