"""Unpack archives that were made elsewhere, within bounds: size, members, names, kinds."""

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
"""Headers whose content is a name: tarfile reads each into memory, whole."""
MAX_NAME_BYTES = 64 * 1024


class BadArchive(ValueError):
    """An archive that is not taken apart: damaged, too large, or with more than plain files."""


@dataclass(frozen=True)
class ArchiveLimits:
    """What an archive may hold. `ratio` is of what comes out to what went in, above `slack`."""

    members: int = 10_000
    ratio: int = 100
    slack: int = 256 * 1024 * 1024

    def max_unpacked_bytes(self, packed: int) -> int:
        """Bytes that an archive of `packed` bytes may unpack to."""
        return self.slack + self.ratio * packed


DEFAULT_LIMITS = ArchiveLimits()
"""Metrics and texts shrink to a tenth, rarely to a fiftieth; weights hardly at all."""


class CountingReader:
    """What a decompressor reads from, with a count of the bytes that it has taken."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.bytes_read = 0

    def read(self, size: int = -1) -> bytes:
        """Read as the stream does."""
        content = self._stream.read(size)
        self.bytes_read += len(content)
        return content


class BoundedReader(io.RawIOBase):
    """What a decompressor gives. Raise BadArchive once it is too much for what it has taken."""

    def __init__(
        self, stream: IO[bytes], packed: CountingReader, limits: ArchiveLimits = DEFAULT_LIMITS
    ) -> None:
        super().__init__()
        self._stream = stream
        self._packed = packed
        self._bounds = limits
        self._given = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer. Raise BadArchive, and whatever the stream raises."""
        with memoryview(buffer) as view:
            content = self._stream.read(min(len(view), CHUNK))
            view[: len(content)] = content
        self._given += len(content)
        if self._given > self._bounds.max_unpacked_bytes(self._packed.bytes_read):
            raise BadArchive(
                f"it unpacks to more than {self._bounds.ratio} times its size, as a file does"
                " that was made to fill a disk"
            )
        return len(content)


def unpack_tar_gz(stream: IO[bytes], folder: Path, limits: ArchiveLimits = DEFAULT_LIMITS) -> None:
    """Unpack the plain files of a .tar.gz into `folder`.

    Raise BadArchive for a damaged archive, one beyond `bounds`, and
    one that holds a link, a device or a name outside `folder`; what was unpacked before it stays
    for the caller to remove. Raise OSError.
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
    """Every plain file with its content, in order; folders are left out."""
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
