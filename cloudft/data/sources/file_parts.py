"""Split a large file into parts of whole lines, for processes that each read one."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from cloudft.data.sources.json_layout import detect_layout
from cloudft.data.sources.line_blocks import SMALL_FILE
from cloudft.data.sources.source_files import SourceFile

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MIN_PART_BYTES = 128 * 1024 * 1024
"""Bytes of a part: a process takes a fifth of a second to start."""


@dataclass(frozen=True)
class FilePart(SourceFile):
    """The lines of a file from one byte to another."""

    start: int = 0
    end: int = 0

    def open(self) -> IO[bytes]:
        """Open these bytes alone. Raises OSError."""
        return cast(IO[bytes], _ByteRange(self.path, self.start, self.end))


class _ByteRange(io.RawIOBase):
    def __init__(self, path: Path, start: int, end: int) -> None:
        super().__init__()
        self._file = path.open("rb", buffering=0)
        self._file.seek(start)
        self._left = end - start

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        with memoryview(buffer) as view:
            count = self._file.readinto(view[: self._left]) or 0
        self._left -= count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def split_file(source: SourceFile, max_parts: int) -> list[FilePart]:
    """Return the file in up to `max_parts` parts of whole lines; none if it is not that large.

    Only JSONL files on disk are split. Raises OSError.
    """
    if type(source) is not SourceFile or source.file_type != "jsonl" or source.is_packed:
        return []
    size = source.path.stat().st_size
    count = min(max_parts, size // MIN_PART_BYTES)
    if count < 2:
        return []
    edges = [0]
    with source.path.open("rb") as handle:
        if detect_layout(handle.read(SMALL_FILE), is_whole=False).kind != "lines":
            return []
        for index in range(1, count):
            handle.seek(size * index // count)
            handle.readline()  # a part begins with a whole line
            edges.append(handle.tell())
    return [
        FilePart(source.path, source.display_name, source.name, source.file_type, start, end)
        for start, end in pairwise([*edges, size])
        if start < end
    ]
