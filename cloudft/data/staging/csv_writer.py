"""Write records as CSV: one column a field, each text as it is.

This is data, read back for training: nothing is put before a text that a spreadsheet would take
for a formula (spreadsheet_csv.py does, for people). They are counted, for a warning.
"""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

from cloudft.data.formats.fast_path import RecordBatch
from cloudft.data.formats.record import BadRecord, Document, Record
from cloudft.data.formats.registry import encode_record
from cloudft.data.staging.spreadsheet_csv import is_formula
from cloudft.data.token_estimate import estimate_tokens
from cloudft.types import StagedFile


class CsvWriter:
    """A new CSV file of `prompt` and `completion`, or of `text`. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._header: list[str] = []
        self._records = self._characters = 0
        self.formula_rows = 0
        """Rows with a text that a spreadsheet would run."""
        self._handle = path.open("x", encoding="utf-8", newline="")
        self._rows = csv.writer(self._handle)  # CR LF at the end, as RFC 4180 has it

    def __enter__(self) -> CsvWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()
        raw = self._path.read_bytes()
        self._bytes, self._sha256 = len(raw), hashlib.sha256(raw).hexdigest()

    def add_record(self, record: Record, group: str | None = None) -> None:
        """Write one record. Raises BadRecord when two columns cannot hold it."""
        import orjson

        target = "text" if isinstance(record, Document) else "prompt-completion"
        raw, characters = encode_record(record, target)
        self._write_row(orjson.loads(raw), characters)

    def add_batch(self, batch: RecordBatch) -> None:
        """Write a block of plain records."""
        for prompt, completion in zip(batch.prompts, batch.completions, strict=True):
            value = {"prompt": prompt, "completion": completion}
            self._write_row(value, len(prompt) + len(completion))

    def _write_row(self, value: dict[str, str], characters: int) -> None:
        if not self._header:
            self._header = list(value)
            self._rows.writerow(self._header)
        if list(value) != self._header:
            message = "labeled and unlabeled records do not go into one table"
            raise BadRecord("WrongTask", message, "convert them into two files")
        try:
            self._rows.writerow(value.values())
        except csv.Error as error:  # Python 3.10 writes no NUL character
            message = f"a field can't be written as CSV: {error}"
            fix = "write JSONL, or use Python 3.11 or newer"
            raise BadRecord("NotWritable", message, fix) from error
        self.formula_rows += any(map(is_formula, value.values()))
        self._records += 1
        self._characters += characters

    def to_data_file(self, name: str) -> StagedFile:
        """Return what was written, under the name that it gets. Call it after the `with` block."""
        return StagedFile(
            name=name,
            sha256=self._sha256,
            bytes=self._bytes,
            records=self._records,
            characters=self._characters,
            tokens=estimate_tokens(self._characters),
        )
