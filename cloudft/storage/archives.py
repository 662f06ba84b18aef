"""Unpack archives from untrusted sources, within limits of size, members, names and file types."""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

CHUNK = 1 << 20
NAME_TYPES = {
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
}
"""Headers whose content is a name. tarfile reads each of them whole into memory."""
MAX_NAME_BYTES = 64 * 1024


class BadArchive(ValueError):
    """An archive that is refused: damaged, too large, or with members other than plain files."""


@dataclass(frozen=True)
class ArchiveLimits:
    """The limits of an archive. `ratio` is unpacked to packed bytes, above `slack`."""

    members: int = 10_000
    ratio: int = 100
    slack: int = 256 * 1024 * 1024

    def max_unpacked_bytes(self, packed: int) -> int:
        """Return how many bytes an archive of `packed` bytes may unpack to."""
        return self.slack + self.ratio * packed


DEFAULT_LIMITS = ArchiveLimits()
"""Metrics and texts compress to a tenth, rarely to a fiftieth; weights hardly at all."""


class CountingReader:
    """The stream below a decompressor, with a count of the bytes that were read."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.bytes_read = 0

    def read(self, size: int = -1) -> bytes:
        """Read as the stream does."""
        content = self._stream.read(size)
        self.bytes_read += len(content)
        return content


class BoundedReader(io.RawIOBase):
    """The output of a decompressor. Raise BadArchive once it exceeds the limit for its input."""

    def __init__(
        self, stream: IO[bytes], packed: CountingReader, limits: ArchiveLimits = DEFAULT_LIMITS
    ) -> None:
        super().__init__()
        self._stream = stream
        self._packed = packed
        self._bounds = limits
        self._read = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer. Raise BadArchive, and what the stream raises."""
        with memoryview(buffer) as view:
            content = self._stream.read(min(len(view), CHUNK))
            view[: len(content)] = content
        self._read += len(content)
        if self._read > self._bounds.max_unpacked_bytes(self._packed.bytes_read):
            raise BadArchive(
                f"it unpacks to more than {self._bounds.ratio} times its size, as a zip bomb does"
            )
        return len(content)


def unpack_tar_gz(stream: IO[bytes], folder: Path, limits: ArchiveLimits = DEFAULT_LIMITS) -> None:
    """Unpack the plain files of a .tar.gz into `folder`.

    Raise BadArchive for an archive that is damaged, exceeds `limits`, or has a link, a device or a
    name outside `folder`. The caller removes what was unpacked before. Raise OSError.
    """
    packed = CountingReader(stream)
    unzipped = cast(IO[bytes], gzip.GzipFile(fileobj=cast(Any, packed)))
    reader = io.BufferedReader(BoundedReader(unzipped, packed, limits), CHUNK)
    try:
        with tarfile.open(fileobj=reader, mode="r|", tarinfo=_Header) as archive:
            for path, content in _files(archive, limits):
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as file:
                    shutil.copyfileobj(content, file, CHUNK)
    except (FileExistsError, NotADirectoryError) as error:
        raise BadArchive(f"it holds {Path(error.filename).name[:100]!r} twice") from error
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadArchive(str(error)) from error


def _files(
    archive: tarfile.TarFile, bounds: ArchiveLimits
) -> Iterator[tuple[PurePosixPath, IO[bytes]]]:
    """Yield every plain file with its content, in order; skip folders."""
    for number, member in enumerate(archive, 1):
        if number > bounds.members:
            raise BadArchive(f"it holds more than {bounds.members} files")
        name = PurePosixPath(member.name)
        if name.is_absolute() or ".." in name.parts or "\0" in member.name:
            raise BadArchive(f"it holds a name outside its folder: {member.name[:100]!r}")
        if member.isdir():
            continue
        content = archive.extractfile(member) if member.isreg() and not member.issparse() else None
        if content is None:
            raise BadArchive(f"{member.name[:100]!r} in it is no plain file")
        yield name, content


class _Header(tarfile.TarInfo):
    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        """Read a header as tarfile does. Raise BadArchive for a name of megabytes."""
        header = super().frombuf(buf, encoding, errors)
        if header.type in NAME_TYPES and header.size > MAX_NAME_BYTES:
            raise BadArchive("it holds a name that is too long")
        return header
