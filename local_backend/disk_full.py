"""A disk without room, in words: each library reports one in its own way.

Python raises OSError with an errno. safetensors (0.8) raises a SafetensorError that has it in its
text alone. torch.save (2.13) raises `RuntimeError: [enforce fail ...] unexpected pos N vs M`; given
an open file, the OSError is in the error's context. So write through an open file.
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
"""The disk, the user's share of it, or the size that a file may have is used up."""
ERRNO = re.compile(r"\(os error (\d+)\)")
"""How Rust's libraries end the text of such an error."""


class DiskFull(TrainerError):
    """There is no room left to write to."""


def disk_full_reason(error: BaseException | None) -> str | None:
    """Return the system's words for a disk without room, where that is behind `error`."""
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        found = ERRNO.search(str(error))
        if number is None and found:
            number = int(found[1])
        if number in DISK_FULL_ERRNOS:
            return os.strerror(number)
        error = error.__cause__ or error.__context__
    return None


def disk_full_error(what: str, folder: Path, reason: str, fix: str) -> DiskFull:
    """Return the error for `what` that could not be written below `folder`."""
    return DiskFull(f"{what} can't be written: {reason} ({_describe_free_space(folder)}).", fix=fix)


@contextlib.contextmanager
def raise_on_full_disk(what: str, folder: Path, fix: str) -> Iterator[None]:
    """Turn what a disk without room raises into DiskFull, which names `folder` and the remedy."""
    try:
        yield
    except DiskFull:
        raise
    except Exception as error:
        words = disk_full_reason(error)
        if words is None:
            raise
        raise disk_full_error(what, folder, words, fix) from error


def _describe_free_space(folder: Path) -> str:
    """What is free on the disk of `folder`, or of what is there above it."""
    for place in (folder, *folder.parents):
        with contextlib.suppress(OSError):
            found = os.statvfs(place)
            free = found.f_bavail * found.f_frsize
            return f"{folder}; {free / 1e6:,.0f} MB are free there"
    return str(folder)
