"""Append lines to a JSONL file that a person keeps: whole lines, durable, several writers."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from cloudft.storage.atomic_files import atomic_write


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold a folder exclusively among those that write JSONL files in it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def append_line(path: Path, line: bytes) -> None:
    """Append a line to a file, which is created if missing; durable when it returns.

    A last line without its end gets one. What could not be written whole is removed. Raise OSError.
    """
    with locked_folder(path.parent):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            is_torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            content = (b"\n" if is_torn else b"") + line.rstrip(b"\n") + b"\n"
            try:
                if os.write(descriptor, content) < len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)


def remove_line(path: Path, line: bytes) -> bool:
    """Remove the first line that is `line`; return False where there is none. Raise OSError."""
    with locked_folder(path.parent):
        lines = path.read_bytes().splitlines(keepends=True)
        for number, one in enumerate(lines):
            if one.strip() == line.strip():
                atomic_write(path, b"".join(lines[:number] + lines[number + 1 :]))
                return True
    return False
