"""Know where lines begin in a file of any size, to read line N of millions without the others.

The index has the offset of a line every STEP_BYTES bytes: 16 bytes of memory for 256 KiB of file.
Reading a line searches at most that much. A file that grows is indexed on; one that was replaced or
changed is noticed before a line of it is taken for another one.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import IO

import msgspec
import orjson

from cloudft.errors import BadDocument, CloudftError
from cloudft.storage.documents import Count, decode

STEP_BYTES = 256 * 1024
"""Bytes between two lines of the index, and bytes read at a time."""
MAX_ENTRIES = 65_536
"""Entries from which on every second one is dropped: 1 MiB of memory, whatever the file's size."""
GUARD_BYTES = 4096
"""Bytes at the beginning, and at the end of what is indexed, by which a growing file is known."""
VERSION = 1


class FileChanged(CloudftError):
    """A file that is not the one that was indexed."""

    code = "FileChanged"


@dataclass(frozen=True)
class RawLine:
    """One line of a file, without its end. `number` counts from 1; `size` is in bytes.

    `raw` is the whole line, or its beginning.
    """

    number: int
    offset: int
    raw: bytes
    size: int

    @property
    def is_whole(self) -> bool:
        """Return whether `raw` is the whole line."""
        return len(self.raw) == self.size


class _Kept(msgspec.Struct, rename="camel"):
    """The first line of a kept index. The entries follow as 64-bit numbers."""

    version: int
    device: int
    inode: int
    changed: int
    size: Count
    step: Count
    line_ends: Count
    line_start: Count
    entries: Count
    guard: str


@dataclass
class RecordIndex:
    """The index of one file, built piece by piece with `extend`.

    `size` bytes are indexed; they have `line_ends` newlines, and the line that begins at
    `line_start` has not ended yet. `changed` is the file's time of modification.
    """

    path: Path
    device: int
    inode: int
    changed: int
    size: int = 0
    line_ends: int = 0
    line_start: int = 0
    guard: str = ""
    step: int = STEP_BYTES
    numbers: array[int] = field(default_factory=lambda: array("Q", [1]))
    offsets: array[int] = field(default_factory=lambda: array("Q", [0]))
    _lock: Lock = field(default_factory=Lock, compare=False, repr=False)
    """Held while the index grows, which happens in another thread than the reading of lines."""

    @classmethod
    def of_file(cls, path: Path) -> RecordIndex:
        """Return the empty index of a file. Raise OSError."""
        status = path.stat()
        return cls(path, status.st_dev, status.st_ino, status.st_mtime_ns)

    @property
    def line_count(self) -> int:
        """Return how many lines were found so far; the last one may lack its newline."""
        return self.line_ends + (self.size > self.line_start)

    def open(self) -> IO[bytes]:
        """Open the file. Raise FileChanged unless it is the one that is indexed; OSError."""
        handle = self.path.open("rb")
        try:
            self._require_same(handle)
        except BaseException:
            handle.close()
            raise
        return handle

    def extend(self, handle: IO[bytes], pieces: int = 1) -> bool:
        """Index up to `pieces` further pieces; return whether the end of the file is reached."""
        with self._lock:
            handle.seek(self.size)
            is_end = False
            for _ in range(pieces):
                piece = handle.read(STEP_BYTES)
                self._add(piece)
                is_end = len(piece) < STEP_BYTES
                if is_end:
                    break
            self.guard = _hash_ends(handle, self.size)
            return is_end

    def read_lines(self, first: int, count: int, max_bytes: int) -> list[RawLine]:
        """Return `count` lines from number `first` on, each cut to `max_bytes`.

        Fewer at the end of the file. A line that is not indexed yet is searched from the last one
        that is. Raise FileChanged, OSError.
        """
        with self._lock:
            at = bisect_right(self.numbers, first) - 1
            number, offset = self.numbers[at], self.offsets[at]
        with self.open() as handle:
            if offset:
                handle.seek(offset - 1)
                if handle.read(1) != b"\n":
                    raise self._changed()
            lines: list[RawLine] = []
            number += _skip_lines(handle, first - number)
            while number == first + len(lines) and len(lines) < count:
                line = _read_line(handle, number, max_bytes)
                if line is None:
                    break
                lines.append(line)
                number += 1
            return lines

    def to_bytes(self) -> bytes:
        """Return the index as bytes, to be kept."""
        kept = {
            "version": VERSION,
            "device": self.device,
            "inode": self.inode,
            "changed": self.changed,
            "size": self.size,
            "step": self.step,
            "lineEnds": self.line_ends,
            "lineStart": self.line_start,
            "entries": len(self.numbers),
            "guard": self.guard,
        }
        return b"\n".join([orjson.dumps(kept), self.numbers.tobytes() + self.offsets.tobytes()])

    @classmethod
    def from_bytes(cls, content: bytes, path: Path) -> RecordIndex | None:
        """Return a kept index; None if it is damaged, or of another file than is at `path` now."""
        head, _, rest = content.partition(b"\n")
        try:
            kept = decode(head, _Kept, file=path, versions=(VERSION,))
        except BadDocument:
            return None
        numbers, offsets = array("Q"), array("Q")
        if not kept.entries or len(rest) != 2 * kept.entries * numbers.itemsize:
            return None
        numbers.frombytes(rest[: len(rest) // 2])
        offsets.frombytes(rest[len(rest) // 2 :])
        values = (kept.device, kept.inode, kept.changed, kept.size, kept.line_ends, kept.line_start)
        index = cls(path, *values, kept.guard, kept.step, numbers, offsets)  # fields in their order
        try:
            index.open().close()
        except (FileChanged, OSError):
            return None
        return index

    def _add(self, piece: bytes) -> None:
        ends = piece.count(b"\n")
        if ends:
            after = self.size + piece.index(b"\n") + 1
            if after - self.offsets[-1] >= self.step:
                self.numbers.append(self.line_ends + 2)
                self.offsets.append(after)
            self.line_ends += ends
            self.line_start = self.size + piece.rindex(b"\n") + 1
        self.size += len(piece)
        if len(self.numbers) > MAX_ENTRIES:
            self.numbers, self.offsets = self.numbers[::2], self.offsets[::2]
            self.step *= 2

    def _require_same(self, handle: IO[bytes]) -> None:
        with self._lock:
            self._compare(handle)

    def _compare(self, handle: IO[bytes]) -> None:
        status = os.fstat(handle.fileno())
        is_same = (status.st_dev, status.st_ino) == (self.device, self.inode)
        if is_same and status.st_size >= self.size and status.st_mtime_ns == self.changed:
            return
        # Appended to: what was indexed is still there.
        has_grown = is_same and status.st_size > self.size
        if not has_grown or _hash_ends(handle, self.size) != self.guard:
            raise self._changed()
        self.changed = status.st_mtime_ns

    def _changed(self) -> FileChanged:
        fix = "open it again: lines are counted in the file that is there now."
        return FileChanged("the file was replaced or changed", file=str(self.path), fix=fix)


def _hash_ends(handle: IO[bytes], size: int) -> str:
    """Return a hash of the first bytes of a file and of those before `size`."""
    from xxhash import xxh3_128_hexdigest

    at = handle.tell()
    handle.seek(0)
    start = handle.read(min(GUARD_BYTES, size))
    handle.seek(max(0, size - GUARD_BYTES))
    end = handle.read(min(GUARD_BYTES, size))
    handle.seek(at)
    return "" if not size else xxh3_128_hexdigest(start + end)


def _skip_lines(handle: IO[bytes], count: int) -> int:
    """Read to the beginning of the line that comes `count` lines later, in bounded memory.

    Return how many lines ended: fewer at the end of the file.
    """
    skipped = 0
    while skipped < count:
        start = handle.tell()
        piece = handle.read(STEP_BYTES)
        ends = piece.count(b"\n")
        if skipped + ends >= count:
            at = -1
            for _ in range(count - skipped):
                at = piece.index(b"\n", at + 1)
            handle.seek(start + at + 1)
            return count
        if not piece:
            break
        skipped += ends
    return skipped


def _read_line(handle: IO[bytes], number: int, max_bytes: int) -> RawLine | None:
    """Return the next line, cut to `max_bytes`; None at the end of the file."""
    offset = handle.tell()
    kept, size, last = [], 0, b""
    while part := handle.readline(STEP_BYTES):
        last = part
        kept.append(part[: max(0, max_bytes - size)])
        size += len(part)
        if part.endswith(b"\n"):
            break
    if not last:
        return None
    end = _count_line_end(last, size, handle, offset)
    return RawLine(number, offset, b"".join(kept)[: size - end], size - end)


def _count_line_end(last: bytes, size: int, handle: IO[bytes], offset: int) -> int:
    """Return the bytes of a line's end: 0 to 2. `last` is the part of the line that was read last.

    A CR may be the last byte of the part before.
    """
    if not last.endswith(b"\n"):
        return 0
    if last.endswith(b"\r\n"):
        return 2
    if len(last) == 1 and size > 1:
        at = handle.tell()
        handle.seek(offset + size - 2)
        is_cr = handle.read(1) == b"\r"
        handle.seek(at)
        return 1 + is_cr
    return 1
