"""Folders that appear whole or not at all, and what a killed writer leaves of them.

A folder is written under a hidden name beside its final one and renamed at the end. Its writer
holds a lock (flock) on it, which goes with the process: an unlocked one was left by a kill, and
whoever writes beside it next removes it.
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
"""In the name of every folder that is being written: nobody else's folder has it."""


@contextlib.contextmanager
def atomic_folder(final: Path, *, replace: bool = False) -> Iterator[Path]:
    """A temporary folder that becomes `final` when all went well, and nothing otherwise.

    With `replace`, what is there goes. Without, only an empty folder can be replaced
    (rename(2) guarantees it): raises FileExistsError when anything else has appeared there.
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
    """A new folder beside `final`, and the descriptor that holds it."""
    while True:
        folder = final.parent / _temporary_name(final)
        folder.mkdir()
        lock = _lock(folder, wait=True)
        # Between the two lines above, another process may have taken it for a leftover.
        if lock is not None and folder.is_dir():
            return folder, lock
        if lock is not None:
            os.close(lock)


def _temporary_name(final: Path) -> str:
    return f".{final.name}{TEMPORARY_MARK}{secrets.token_hex(4)}"


def _lock(folder: Path, *, wait: bool) -> int | None:
    """A descriptor that holds `folder`; None when it is gone or another process holds it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        # NFS locks no folders: written all the same, and never taken for a leftover.
        if wait:
            return descriptor
        os.close(descriptor)
        return None
    return descriptor


def _move_aside(final: Path) -> None:
    """Make room at `final`. A folder is a leftover from then on."""
    with contextlib.suppress(FileNotFoundError):
        if final.is_dir() and not final.is_symlink():
            final.rename(final.parent / _temporary_name(final))
        else:
            final.unlink()


def remove_path(path: Path) -> None:
    """Remove a folder with all that is in it, or what lies in its place. Raise OSError."""
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
    """Give files the mode that the umask says, as the folder has it: safetensors (0.8) writes 0600.

    Whoever may use a model's folder may read its weights.
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
    """Make what was renamed or linked in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
