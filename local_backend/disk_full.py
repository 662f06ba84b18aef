"""Recognize a full disk, which each library reports in its own way.

Python raises OSError with an errno. safetensors (0.8) raises a SafetensorError that has the errno
only in its text. torch.save (2.13) raises `RuntimeError: [enforce fail ...] unexpected pos N vs M`;
given an open file, the OSError is in the error's context. So pass torch.save an open file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from local_backend.errors import TrainerError

DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The disk is full, the user's quota is used up, or the file has reached its size limit."""
ERRNO = re.compile(r"\(os error (\d+)\)")
"""How Rust libraries end the text of an OS error."""


class DiskFull(TrainerError):
    """Raised when there is no disk space left to write to."""


def disk_full_reason(error: BaseException | None) -> str | None:
    """Return the system's message if a full disk caused `error`, else None.

    Follows the chain of causes and contexts.
    """
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        match = ERRNO.search(str(error))
        if number is None and match:
            number = int(match[1])
        if number in DISK_FULL_ERRNOS:
            return os.strerror(number)
        error = error.__cause__ or error.__context__
    return None


def disk_full_error(what: str, folder: Path, reason: str, fix: str) -> DiskFull:
    """Return the error for `what`, which could not be written below `folder`."""
    return DiskFull(f"{what} can't be written: {reason} ({_describe_free_space(folder)}).", fix=fix)


@contextlib.contextmanager
def raise_on_full_disk(what: str, folder: Path, fix: str) -> Iterator[None]:
    """Turn errors that a full disk causes into DiskFull, which names `folder` and the remedy."""
    try:
        yield
    except DiskFull:
        raise
    except Exception as error:
        reason = disk_full_reason(error)
        if reason is None:
            raise
        raise disk_full_error(what, folder, reason, fix) from error


def _describe_free_space(folder: Path) -> str:
    """Return `folder` and the free space on its disk, or on that of its nearest existing parent."""
    for existing in (folder, *folder.parents):
        with contextlib.suppress(OSError):
            status = os.statvfs(existing)
            free = status.f_bavail * status.f_frsize
            return f"{folder}; {free / 1e6:,.0f} MB are free there"
    return str(folder)
