"""Read a gzipped file as a stream, with every kind of damage as one error."""

from __future__ import annotations

import errno
import gzip
import io
import zlib
from typing import IO, TYPE_CHECKING, cast

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

DAMAGED = "the gzip data is damaged or cut off"


class GzipStream(io.RawIOBase):
    """The unpacked bytes of a gzipped stream. Raises OSError where it is damaged."""

    def __init__(self, packed: IO[bytes] | io.RawIOBase) -> None:
        """Read from `packed`, which is closed with this stream."""
        super().__init__()
        self._packed = packed
        self._unpacked = gzip.GzipFile(fileobj=cast("IO[bytes]", packed), mode="rb")

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read up to as many bytes as `buffer` holds; return their number, 0 at the end."""
        with memoryview(buffer) as view:
            try:
                content = self._unpacked.read(len(view))
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise OSError(errno.EIO, DAMAGED) from error
            view[: len(content)] = content
        return len(content)

    def close(self) -> None:
        """Close both streams."""
        if not self.closed:
            self._unpacked.close()
            self._packed.close()
        super().close()
