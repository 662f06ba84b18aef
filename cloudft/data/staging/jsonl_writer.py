"""Write a staged file: canonical lines, counted and hashed on their way."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from cloudft.data.formats.fast_path import RecordBatch, encode_batch
from cloudft.data.formats.record import Record
from cloudft.data.formats.registry import encode_record
from cloudft.data.token_estimate import estimate_tokens
from cloudft.types import StagedFile


class JsonlWriter:
    """One new JSONL file in format `target`, as a context manager. Raises OSError."""

    def __init__(self, path: Path, target: str = "") -> None:
        self._target = target
        self._digest = hashlib.sha256()
        self._records = self._bytes = self._characters = 0
        self._handle = path.open("xb", buffering=1024 * 1024)

    def __enter__(self) -> JsonlWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()

    def add_record(self, record: Record, group: str | None = None) -> None:
        """Write one record. Raises BadRecord when the format cannot hold it."""
        raw, characters = encode_record(record, self._target)
        self._write(raw, 1, characters)

    def add_batch(self, batch: RecordBatch) -> None:
        """Write a block of plain records."""
        self._write(encode_batch(batch, self._target), len(batch), batch.characters)

    def add_lines(self, lines: Iterable[bytes], characters: int) -> None:
        """Write canonical lines whose texts have `characters` characters in all."""
        lines = list(lines)
        self._write(b"".join(lines), len(lines), characters)

    def _write(self, raw: bytes, records: int, characters: int) -> None:
        self._handle.write(raw)
        self._digest.update(raw)
        self._bytes += len(raw)
        self._records += records
        self._characters += characters

    def to_data_file(self, name: str) -> StagedFile:
        """Return what was written, under the name that it gets."""
        return StagedFile(
            name=name,
            sha256=self._digest.hexdigest(),
            bytes=self._bytes,
            records=self._records,
            characters=self._characters,
            tokens=estimate_tokens(self._characters),
        )
