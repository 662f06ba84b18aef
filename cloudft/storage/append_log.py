"""Append lines that no crash loses, and read them back whole: one JSON value a line."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cloudft.storage.atomic_files import fsync_folder

PIECE_BYTES = 1 << 20


def append_line(path: Path, line: bytes) -> None:
    """Append one line; it is on disk when this returns. Raise OSError.

    Writers of several threads and processes take turns. Half a line that a crash has left is ended
    first, so that it spoils nothing but itself.
    """
    append_lines(path, (line,))


def append_lines(path: Path, lines: tuple[bytes, ...] | list[bytes]) -> None:
    """Append several lines as `append_line` does, with one wait for the disk."""
    is_new = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        size = os.fstat(descriptor).st_size
        is_torn = size and os.pread(descriptor, 1, size - 1) != b"\n"
        content = memoryview(b"".join([b"\n" * bool(is_torn), *(line + b"\n" for line in lines)]))
        while content:  # a nearly full disk takes a part, and refuses the next one
            content = content[os.write(descriptor, content) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if is_new:
        fsync_folder(path.parent)


@dataclass
class LogReader:
    """Reads what was appended to a file since it was last read. Not thread-safe."""

    path: Path
    offset: int = 0
    """Bytes that were read: up to the end of a line."""

    def read_new_lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield each whole line that is new, with the offset at which it begins. Raise OSError.

        A line without its end is read when it has one: it is being written, or a crash has cut it.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            if os.fstat(descriptor).st_size < self.offset:
                self.offset = 0  # another file has taken its place
            rest = b""
            while piece := os.pread(descriptor, PIECE_BYTES, self.offset + len(rest)):
                *whole, rest = (rest + piece).split(b"\n")
                for line in whole:
                    start, self.offset = self.offset, self.offset + len(line) + 1
                    if line:
                        yield start, line
        finally:
            os.close(descriptor)
