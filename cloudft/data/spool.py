"""Canonical lines on disk, counted and hashed as they are written."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cloudft.data.split import key_of
from cloudft.types import DataFile

CHARACTERS_PER_TOKEN = 6
TOKEN_RULE = "estimate: characters / 6, Bedrock's planning rule; common English text has nearer 4"


class Line(NamedTuple):
    """One canonical record and the characters of its texts."""

    raw: bytes
    characters: int


class Spool:
    """One JSONL file being written. Keeps 16 bytes a record in memory, for split and mix.

    Raises OSError when the disk does not take it. Read it after leaving it as a context manager.
    """

    def __init__(self, path: Path, seed: int = 0, purpose: str = "") -> None:
        self.path = path
        self.keys: array[int] = array("Q")
        self.sizes: array[int] = array("Q")
        self._seed, self._purpose = seed, purpose
        self._digest = hashlib.sha256()
        self._bytes = self._tokens = 0
        self._handle = path.open("xb")

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()

    def write(self, line: Line) -> None:
        """Add one record."""
        self._handle.write(line.raw)
        self._digest.update(line.raw)
        self._bytes += len(line.raw)
        self._tokens += -(-line.characters // CHARACTERS_PER_TOKEN)
        self.sizes.append(line.characters)
        if self._purpose:
            self.keys.append(key_of(line.raw, self._seed, self._purpose))

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[Line]:
        with self.path.open("rb") as handle:
            for raw, characters in zip(handle, self.sizes, strict=True):
                yield Line(raw, characters)

    def data_file(self, name: str) -> DataFile:
        """What was written, under the name that it gets."""
        return DataFile(
            name=name,
            sha256=self._digest.hexdigest(),
            bytes=self._bytes,
            records=len(self),
            characters=sum(self.sizes),
            tokens=self._tokens,
        )
