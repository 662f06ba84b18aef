"""Read a file that grows by whole lines, and notice when it was cut: a resume takes steps again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BLOCK_BYTES = 4 << 20
TAIL_BYTES = 128
"""Bytes before a position that must be unchanged. A point's line ends in its time."""


@dataclass(frozen=True)
class Position:
    """Where reading continues: an offset in bytes, and the bytes before it."""

    offset: int = 0
    tail: bytes = b""

    def after(self, block: bytes) -> Position:
        """Return the position behind a block that was read here."""
        return Position(self.offset + len(block), (self.tail + block)[-TAIL_BYTES:])


class GrowingFile:
    """A file of lines that another process appends to. Nothing of it is read twice."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def size(self) -> int:
        """Return the size in bytes; 0 for a missing file. Raise OSError."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def position_at(self, offset: int) -> Position:
        """Return the position of an offset that a reader has reached. Raise OSError."""
        begin = max(0, offset - TAIL_BYTES)
        return Position(offset, self._read(begin, offset - begin))

    def continues(self, position: Position) -> bool:
        """Return whether what was read before the position is still there. Raise OSError."""
        size = len(position.tail)
        return size == 0 or self._read(position.offset - size, size) == position.tail

    def read_blocks(self, position: Position) -> Iterator[tuple[bytes, Position]]:
        """Yield blocks of whole lines behind a position, each with the position behind it.

        A last line that is still being written is left for later. Raise OSError.
        """
        held = b""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            while block := os.pread(descriptor, BLOCK_BYTES, position.offset + len(held)):
                whole, newline, rest = (held + block).rpartition(b"\n")
                held = rest
                if newline:
                    position = position.after(whole + newline)
                    yield whole + newline, position
        finally:
            os.close(descriptor)

    def _read(self, offset: int, size: int) -> bytes:
        try:
            with self.path.open("rb") as file:
                return os.pread(file.fileno(), size, offset)
        except FileNotFoundError:
            return b""
