"""Atomic file writes, and locks that are released when their process exits."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from cloudft.errors import StoreError

REMEDIES = {
    errno.ENOSPC: "free some space on that disk, or set CLOUDFT_HOME to another one.",
    errno.EDQUOT: "free some of your quota, or set CLOUDFT_HOME to another disk.",
    errno.EROFS: "that disk is read-only: set CLOUDFT_HOME to a folder that can be written.",
    errno.EACCES: "allow yourself to write there, or set CLOUDFT_HOME to a folder of your own.",
    errno.EPERM: "allow yourself to write there, or set CLOUDFT_HOME to a folder of your own.",
    errno.ENOTDIR: "a file is in the way of a folder: set CLOUDFT_HOME to a folder.",
}


STALE_AFTER_S = 60.0
"""A temporary folder older than this, whose lock is free, was left by a killed process."""
SCRATCH_LOCK = ".lock"
PRIVATE_MODE = 0o700
"""The mode of folders with training texts, answers or logs."""


def store_error(what: str, path: Path, error: OSError) -> StoreError:
    """Return the StoreError for an OSError: the failed operation, the reason, and the remedy."""
    remedy = REMEDIES.get(error.errno or 0, "check that disk, or set CLOUDFT_HOME to another one.")
    return StoreError(f"{what}: {error.strerror or error}", file=str(path), fix=remedy)


@contextlib.contextmanager
def as_store_error(what: str, path: Path) -> Iterator[None]:
    """Convert an OSError raised within the block into a StoreError that names `path`."""
    try:
        yield
    except OSError as error:
        raise store_error(what, Path(error.filename or path), error) from error


def atomic_write(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step, durable when it returns. Raise OSError."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # Only after fsync: a crash must not leave the new name with the old or no content.
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    fsync_folder(path.parent)


@contextlib.contextmanager
def create_file_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds.

    Raise FileExistsError, before or after the block, when `path` exists: nothing is overwritten.
    """
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(descriptor)
    os.unlink(name)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        # link, unlike rename, fails when `path` appeared meanwhile.
        os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)


@contextlib.contextmanager
def scratch_folder(root: Path, prefix: str) -> Iterator[Path]:
    """Yield a new folder in `root`, which is created if missing; remove the folder afterwards.

    What killed processes left under the same prefix is removed first. Raise OSError.
    """
    root.mkdir(parents=True, exist_ok=True)
    for old in root.glob(f"{prefix}*"):
        if age_seconds(old) > STALE_AFTER_S and not is_locked(old / SCRATCH_LOCK):
            shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=root))
    lock = try_lock(folder / SCRATCH_LOCK)
    assert lock is not None
    try:
        yield folder
    finally:
        os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)


def make_private_folder(path: Path) -> Path:
    """Create `path` and its missing parents; only its owner may enter, whatever the umask is.

    An existing folder of ours that others could enter, as earlier versions created them, is closed.
    Raise OSError.
    """
    path.mkdir(mode=PRIVATE_MODE, parents=True, exist_ok=True)
    status = path.stat()
    if stat.S_IMODE(status.st_mode) != PRIVATE_MODE and status.st_uid == os.geteuid():
        with contextlib.suppress(PermissionError):  # a file system without modes
            path.chmod(PRIVATE_MODE)
    return path


def age_seconds(path: Path) -> float:
    """Return the seconds since `path` was changed; 0 when it is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def fsync_folder(folder: Path) -> None:
    """Make the names in `folder` durable. Raise OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def try_lock(path: Path, *, timeout_s: float = 0.1) -> int | None:
    """Return a descriptor that holds `path` exclusively until it is closed, or None.

    None means that another process holds it. `is_locked` holds the lock for an instant, so the lock
    is retried for `timeout_s`.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    end = time.monotonic() + timeout_s
    try:
        while not _flock(descriptor, fcntl.LOCK_EX):
            if time.monotonic() >= end:
                os.close(descriptor)
                return None
            time.sleep(0.005)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _flock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_locked(path: Path) -> bool:
    """Return whether a living process holds `path` exclusively. Works on a read-only disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _flock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)
