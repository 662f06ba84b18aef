"""Read files as canonical lines of a format: blocks of plain records at once, others one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cloudft.data.findings import Findings
from cloudft.data.formats.chat_fast_path import CONTENT_TYPES
from cloudft.data.formats.fast_path import can_encode, decode_batch, decode_values, encode_batch
from cloudft.data.formats.recognizer import parse_record
from cloudft.data.formats.record import BadRecord, Record
from cloudft.data.formats.registry import encode_record
from cloudft.data.sources.json_rows import read_json_rows
from cloudft.data.sources.line_blocks import Block
from cloudft.data.sources.row_reader import JsonBlock, ReadContext, Row, read_rows
from cloudft.data.sources.source_files import SourceFile


class EncodedRecords(NamedTuple):
    """Records as canonical lines, with the line of each in its file."""

    file: str
    lines: Sequence[int]
    raw: bytes


@dataclass(frozen=True)
class _EncodedBlock(Row):
    """Stands for the rows of a block that is encoded already."""

    lines: Sequence[int] = ()
    raw: bytes = b""


def read_encoded(
    sources: Iterable[SourceFile], columns: Mapping[str, str], target: str
) -> Iterator[EncodedRecords]:
    """Yield the good records of files that were checked before, in order, in the format `target`.

    Records that can't be read or written are left out, as staging leaves them out.
    """
    for source in sources:
        yield from _FileEncoder(source, columns, target).read()


class _FileEncoder:
    """One pass over a file."""

    def __init__(self, source: SourceFile, columns: Mapping[str, str], target: str) -> None:
        self._columns, self._target, self._name = columns, target, source.display_name
        self._context = ReadContext(source, Findings(), columns=columns)
        self._format = ""
        self._is_plain = True

    def read(self) -> Iterator[EncodedRecords]:
        # Renamed columns need the raw record, which a block does not have.
        read_block = None if self._columns else self._read_block
        for row in read_rows(self._context, read_block):
            if isinstance(row, _EncodedBlock):
                yield EncodedRecords(self._name, row.lines, row.raw)
                continue
            try:
                record = parse_record(row.value, self._columns, self._target)
                raw, _ = encode_record(record, self._target)
            except BadRecord:
                continue
            self._note_form(row, record)
            yield EncodedRecords(self._name, (row.line,), raw)

    def _note_form(self, row: Row, record: Record) -> None:
        """Note the format of the records, in which the next block is decoded."""
        self._format = row.format or record.format
        content = CONTENT_TYPES.get(self._format)
        messages = row.value.get("messages")
        if content is not None and isinstance(messages, list) and messages:
            self._is_plain = isinstance(messages[0].get("content"), content)

    def _read_block(self, block: JsonBlock) -> Iterator[Row]:
        """Yield a block as encoded at once where all its records are plain; else its rows."""
        batch = None
        if self._format and self._is_plain:
            if isinstance(block, Block):
                batch = decode_batch(self._format, block.raw, block.line_count)
            else:
                batch = decode_values(self._format, block.raw, in_array=block.in_array)
                block.is_proven |= batch is not None
        if batch is None or not can_encode(batch, self._target):
            yield from read_json_rows(self._context, block)
            return
        lines = block.record_lines()
        yield _EncodedBlock(lines[0], {}, lines=lines, raw=encode_batch(batch, self._target))
