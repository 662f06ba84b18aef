"""Read a file as blocks of whole lines: once, hashed on the way, in constant memory."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator
from itertools import cycle
from typing import IO, TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

READ_BYTES = 1024 * 1024
"""Bytes read and hashed at a time."""
MAX_PENDING_READS = 4
"""Reads that may wait to be hashed."""
BLOCK_BYTES = 96 * 1024
"""Bytes decoded at a time: what stays in a core's cache, and is allocated without page faults."""
SMALL_FILE = 64 * 1024
"""Bytes up to which a file is read as one block, without buffers, threads or numpy: these take
longer to set up than a small file takes to check."""
MIN_NUMPY_BYTES = 4 * 1024
"""Bytes up to which Python counts characters faster than numpy."""
LARGE_ALLOCATION = 16 * 1024 * 1024
NEWLINE = 10


class Block(NamedTuple):
    """Some whole lines of a file; `first_line` is the number of the first one, from 1."""

    first_line: int
    raw: bytes
    line_count: int

    def record_lines(self) -> range:
        """Return the number of each line."""
        return range(self.first_line, self.first_line + self.line_count)


class LineTooLong(Exception):
    """A line is longer than it may be; `line` is its number."""

    def __init__(self, line: int) -> None:
        super().__init__(f"line {line}")
        self.line = line


class StreamDigest:
    """SHA-256 and size of a stream. Large pieces are hashed in a thread, on a second core."""

    is_hashed = True

    def __init__(self) -> None:
        self.size = 0
        self._hash = hashlib.sha256()
        self._small = bytearray()
        self._pool: ThreadPoolExecutor | None = None

    def update(self, raw: bytes) -> None:
        """Add bytes, a line or a cell."""
        self.size += len(raw)
        self._small += raw
        if len(self._small) >= READ_BYTES:
            self._flush()

    def update_in_background(self, view: memoryview) -> Future[None]:
        """Add many bytes, which must not change until the returned future is done."""
        self.size += len(view)
        self._flush()
        if self._pool is None:
            # Imported for large files alone: it loads logging, which a small check never needs.
            from concurrent.futures import ThreadPoolExecutor

            # One worker: hashlib releases the GIL for large buffers, and order matters.
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="sha256")
        return self._pool.submit(self._hash.update, view)

    def _flush(self) -> None:
        self._hash.update(self._small)
        self._small.clear()

    def hexdigest(self) -> str:
        """Return the digest of everything so far, and end the thread."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        self._flush()
        return self._hash.hexdigest()


class ByteCounter(StreamDigest):
    """The size alone, where no digest is needed: hashing takes a third of a check's time."""

    is_hashed = False

    def update(self, raw: bytes) -> None:
        """Count bytes."""
        self.size += len(raw)

    def hexdigest(self) -> str:
        """Return the empty text."""
        return ""


def split_lines(pieces: Iterable[bytes], max_line_bytes: int) -> Iterator[Block]:
    """Yield the lines of a file that is read in pieces, in order; the last may lack its newline.

    Raises LineTooLong, after the lines before it, when a line has more than `max_line_bytes` bytes.
    """
    # `rest` holds the pieces of a line whose end has not been read yet: joining them only at its
    # end keeps a very long line linear.
    first, rest, waiting = 1, [b""], 0
    for raw in pieces:
        end = raw.rfind(b"\n") + 1
        if not end:
            rest.append(raw)
            waiting += len(raw)
            if waiting > max_line_bytes:
                raise LineTooLong(first)
            continue
        whole = b"".join((*rest, raw[:end]))
        if waiting + raw.index(b"\n") > max_line_bytes:
            raise LineTooLong(first)
        lines = count_newlines(whole)
        yield Block(first, whole, lines)
        first += lines
        rest, waiting = [raw[end:]], len(raw) - end
    if waiting > max_line_bytes:
        raise LineTooLong(first)
    if waiting:
        yield Block(first, b"".join(rest), 1)


def is_numpy_worthwhile(raw: bytes) -> bool:
    """Return whether numpy counts characters faster: it is imported, or there are many bytes."""
    return len(raw) > SMALL_FILE or ("numpy" in sys.modules and len(raw) > MIN_NUMPY_BYTES)


def read_pieces(handle: IO[bytes], digest: StreamDigest) -> Iterator[bytes]:
    """Yield a file in small pieces, read and hashed in large ones. `handle` is unbuffered.

    The first piece has SMALL_FILE bytes, or is the whole file.
    """
    start = read_up_to(handle, SMALL_FILE)
    digest.update(start)
    if start:
        yield start
    if len(start) < SMALL_FILE:
        return
    # glibc gives memory back as soon as its top is free, and asks for it again for the next block:
    # a third of the time. Having freed something large, it keeps twice as much (mallopt(3)).
    bytearray(LARGE_ALLOCATION)
    if not digest.is_hashed:
        while piece := handle.read(BLOCK_BYTES):
            digest.update(piece)
            yield piece
        return
    # A ring of buffers: while one is hashed in the thread, the next ones are read and decoded.
    ring: list[tuple[bytearray, list[Future[None]]]] = [
        (bytearray(READ_BYTES), []) for _ in range(MAX_PENDING_READS)
    ]
    for buffer, hashed in cycle(ring):
        if hashed:
            hashed.pop().result()  # the buffer must not be overwritten before
        with memoryview(buffer) as view:
            count = handle.readinto(view)  # type: ignore[attr-defined]
        if not count:
            return
        hashed.append(digest.update_in_background(memoryview(buffer)[:count]))
        for begin in range(0, count, BLOCK_BYTES):
            yield bytes(memoryview(buffer)[begin : min(count, begin + BLOCK_BYTES)])


def read_up_to(handle: IO[bytes], max_bytes: int) -> bytes:
    """Return the whole file, or its first `max_bytes` bytes."""
    parts, left = [], max_bytes
    while left and (part := handle.read(min(left, READ_BYTES))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def count_newlines(raw: bytes) -> int:
    """Return how many newlines there are, with numpy where that is worthwhile."""
    if not is_numpy_worthwhile(raw):
        return raw.count(b"\n")
    import numpy as np

    return int(np.count_nonzero(np.frombuffer(raw, np.uint8) == NEWLINE))
