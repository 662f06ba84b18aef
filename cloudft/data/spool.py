"""Canonical lines on disk, counted and hashed as they are written."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from cloudft.data.columns import Columns, encode
from cloudft.data.convert import canonical
from cloudft.data.record import Document, Turns
from cloudft.data.split import key_of
from cloudft.data.tokens import estimated_tokens
from cloudft.types import DataFile


class Line(NamedTuple):
    """One canonical record and the characters of its texts."""

    raw: bytes
    characters: int


class Spool:
    """One JSONL file being written in format `target`.

    Keeps 4 bytes a record in memory, and 8 more with a `purpose`, for split and mix. Raises OSError
    when the disk does not take it. Read it after leaving it as a context manager.
    """

    def __init__(self, path: Path, target: str = "", seed: int = 0, purpose: str = "") -> None:
        self.path = path
        self.keys: array[int] = array("Q")
        self.sizes: array[int] = array("I")
        self._target, self._seed, self._purpose = target, seed, purpose
        self._digest = hashlib.sha256()
        self._bytes = self._characters = 0
        self._handle = path.open("xb", buffering=1024 * 1024)

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()

    def record(self, record: Turns | Document) -> None:
        """Add one record. Raises BadRecord when the format has no room for it."""
        self.write(Line(*canonical(record, self._target)))

    def columns(self, columns: Columns) -> None:
        """Add a block of plain records."""
        raw = encode(columns, self._target)
        self._write(raw, columns.characters)
        self.sizes.extend(columns.sizes())
        if self._purpose:
            self._add_keys(raw.splitlines(keepends=True))

    def write(self, line: Line) -> None:
        """Add one canonical line."""
        self._write(line.raw, line.characters)
        self.sizes.append(line.characters)
        if self._purpose:
            self._add_keys((line.raw,))

    def _write(self, raw: bytes, characters: int) -> None:
        self._handle.write(raw)
        self._digest.update(raw)
        self._bytes += len(raw)
        self._characters += characters

    def _add_keys(self, lines: Iterable[bytes]) -> None:
        self.keys.extend(key_of(line, self._seed, self._purpose) for line in lines)

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
            characters=self._characters,
            tokens=estimated_tokens(self._characters),
        )
