"""Repair the bytes of a file: unpack it, and write UTF-16 and Windows-1252 as UTF-8."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Callable, Iterator
from typing import IO, Any, cast

from cloudft.data.sources.line_blocks import split_lines
from cloudft.data.sources.text_encoding import decode_windows_1252, detect_utf16
from cloudft.storage.archives import DEFAULT_LIMITS, BoundedReader, CountingReader

DECOMPRESSORS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
BUFFER_BYTES = 1024 * 1024
PIECE_BYTES = 256 * 1024


class NotText(ValueError):
    """A line is neither UTF-8 nor Windows-1252."""

    def __init__(self, line: int) -> None:
        super().__init__(f"line {line}")
        self.line = line


def open_repaired_bytes(handle: IO[bytes], note: Callable[[str], None]) -> io.BufferedReader:
    """Open a file's bytes unpacked, and in UTF-8 if they are UTF-16; `note` gets what was done."""
    stream: io.BufferedReader = io.BufferedReader(cast(io.RawIOBase, handle), BUFFER_BYTES)
    start = stream.peek(8)[:8]
    unpack = next((u for magic, u in DECOMPRESSORS.items() if start.startswith(magic)), None)
    if unpack is not None:
        note("unpacked")
        packed = CountingReader(stream)
        unpacked = BoundedReader(unpack(packed), packed, DEFAULT_LIMITS)
        stream = io.BufferedReader(unpacked, BUFFER_BYTES)
    codec = detect_utf16(stream.peek(8)[:8])
    if codec is not None:
        note("written as UTF-8 (it was UTF-16)")
        stream = io.BufferedReader(_Recoded(stream, codec), BUFFER_BYTES)
    return stream


class _Recoded(io.RawIOBase):
    """A text in another encoding, as UTF-8."""

    def __init__(self, stream: io.BufferedReader, codec: str) -> None:
        super().__init__()
        self._text = io.TextIOWrapper(stream, codec, errors="replace", newline="")
        self._rest = b""

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer."""
        with memoryview(buffer) as view:
            if not self._rest:
                self._rest = self._text.read(len(view)).encode("utf-8", "replace")
            part, self._rest = self._rest[: len(view)], self._rest[len(view) :]
            view[: len(part)] = part
        return len(part)


def repair_text(
    handle: IO[bytes], note: Callable[[str], None], max_line_bytes: int
) -> Iterator[bytes]:
    """Yield a text file's lines in UTF-8, nothing else changed.

    Raises NotText for a line in another encoding, and what reading and unpacking raise.
    """
    stream = open_repaired_bytes(handle, note)
    if stream.peek(3)[:3] == b"\xef\xbb\xbf":
        note("byte order mark left out")
        stream.read(3)
    for block in split_lines(iter(lambda: stream.read(PIECE_BYTES), b""), max_line_bytes):
        number = block.first_line
        for raw in io.BytesIO(block.raw):
            yield _to_utf8(raw, number, note)
            number += 1


def _to_utf8(raw: bytes, number: int, note: Callable[[str], None]) -> bytes:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        text = decode_windows_1252(raw)
        if text is None:
            raise NotText(number) from None
        note("written as UTF-8 (it was Windows-1252)")
        return text.encode("utf-8")
    return raw
