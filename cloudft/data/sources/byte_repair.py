"""Repair the bytes of a file: unpack it, and write UTF-16 and Windows-1252 as UTF-8."""

from __future__ import annotations

import bz2
import codecs
import contextlib
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


@contextlib.contextmanager
def open_repaired_bytes(
    handle: IO[bytes], note: Callable[[str], None]
) -> Iterator[io.BufferedReader]:
    """Open a file's bytes unpacked, and in UTF-8 if they are UTF-16; `note` gets what was done."""
    with contextlib.ExitStack() as stack:
        stream = _buffer(cast(io.RawIOBase, handle), stack)
        start = stream.peek(8)[:8]
        unpack = next((u for magic, u in DECOMPRESSORS.items() if start.startswith(magic)), None)
        if unpack is not None:
            note("unpacked")
            packed = CountingReader(stream)
            unpacked = stack.enter_context(unpack(packed))
            stream = _buffer(BoundedReader(unpacked, packed, DEFAULT_LIMITS), stack)
        codec = detect_utf16(stream.peek(8)[:8])
        if codec is not None:
            note("written as UTF-8 (it was UTF-16)")
            text = stack.enter_context(
                io.TextIOWrapper(stream, codec, errors="replace", newline="")
            )
            stream = _buffer(_Recoded(text), stack)
        yield stream


def _buffer(raw: io.RawIOBase, stack: contextlib.ExitStack) -> io.BufferedReader:
    return stack.enter_context(io.BufferedReader(raw, BUFFER_BYTES))


class _Recoded(io.RawIOBase):
    """A text in another encoding, as UTF-8."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        super().__init__()
        self._text, self._rest = text, b""

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
    with open_repaired_bytes(handle, note) as stream:
        if stream.peek(3)[:3] == codecs.BOM_UTF8:
            note("byte order mark left out")
            stream.read(3)
        pieces = iter(lambda: stream.read(PIECE_BYTES), b"")
        for block in split_lines(pieces, max_line_bytes):
            for number, raw in enumerate(io.BytesIO(block.raw), block.first_line):
                yield _to_utf8(raw, number, note)


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
