"""A staged file being written: canonical lines, counted and hashed on their way."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from cloudft.data.columns import Columns, encode
from cloudft.data.convert import canonical
from cloudft.data.record import Document, Turns
from cloudft.data.tokens import estimated_tokens
from cloudft.types import DataFile


class Spool:
    """One JSONL file in format `target`. Raises OSError when the disk does not take it."""

    def __init__(self, path: Path, target: str = "") -> None:
        self._target = target
        self._digest = hashlib.sha256()
        self._records = self._bytes = self._characters = 0
        self._handle = path.open("xb", buffering=1024 * 1024)

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()

    def record(self, record: Turns | Document, group: str | None = None) -> None:
        """Add one record. Raises BadRecord when the format has no room for it."""
        raw, characters = canonical(record, self._target)
        self._write(raw, 1, characters)

    def columns(self, columns: Columns) -> None:
        """Add a block of plain records."""
        self._write(encode(columns, self._target), len(columns), columns.characters)

    def lines(self, lines: Iterable[bytes], characters: int) -> None:
        """Add canonical lines whose texts have so many characters in all."""
        lines = list(lines)
        self._write(b"".join(lines), len(lines), characters)

    def _write(self, raw: bytes, records: int, characters: int) -> None:
        self._handle.write(raw)
        self._digest.update(raw)
        self._bytes += len(raw)
        self._records += records
        self._characters += characters

    def data_file(self, name: str) -> DataFile:
        """What was written, under the name that it gets."""
        return DataFile(
            name=name,
            sha256=self._digest.hexdigest(),
            bytes=self._bytes,
            records=self._records,
            characters=self._characters,
            tokens=estimated_tokens(self._characters),
        )
