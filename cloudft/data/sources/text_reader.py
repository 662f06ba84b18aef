"""Read a text file: as one document, as a document a line, or as the JSON records that it holds."""

from __future__ import annotations

import codecs
import shlex
from collections.abc import Iterator
from itertools import chain

from cloudft.data.formats.recognizer import match_format
from cloudft.data.sources import row_reader
from cloudft.data.sources.file_start import rename_command
from cloudft.data.sources.json_layout import first_record
from cloudft.data.sources.json_rows import read_json
from cloudft.data.sources.row_reader import BlockReader, ReadContext, Row

MIN_DOCUMENT_LINES = 10
SENTENCE_ENDS = tuple(".!?:;\"')]}\xbb\u201d\u2019\u3002\uff01\uff1f\u2026")
MIN_SENTENCE_SHARE = 0.8
"""Share of a file's lines that end as sentences do, if each is a document of its own."""


def read_text(
    context: ReadContext, pieces: Iterator[bytes], read_block: BlockReader | None
) -> Iterator[Row]:
    """Yield a text file as one document.

    A file that begins with a JSON record in a known format is read as records: nobody means to
    train on the brackets and keys.
    """
    start = next(pieces, b"")
    if context.is_foreign(start):
        return
    if holds_records(start):
        message = "the file holds JSON records, not text; they are read as records"
        context.add_warning("JsonInText", message, rename_command(context.file, ".jsonl"), 1)
        yield from read_json(context, chain([start], pieces), read_block)
        return
    raw = _join(chain([start], pieces))
    if raw is None:
        message = f"a text of more than {row_reader.MAX_RECORD_BYTES} bytes"
        context.add_error("RecordTooLong", message, "split the file")
        return
    raw = context.strip_bom(raw)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as exc:
        _add_encoding_error(context, raw, exc)
        return
    if text:
        _warn_of_lines(context, text)
        yield Row(1, {"text": text}, "document")


def holds_records(start: bytes) -> bool:
    """Return whether a file that begins so holds JSON records in a known format."""
    record = first_record(start.removeprefix(codecs.BOM_UTF8))
    return record is not None and match_format(record) is not None


def read_text_lines(context: ReadContext, pieces: Iterator[bytes]) -> Iterator[Row]:
    """Yield each line of a text file as a document; blank lines hold none."""
    for block in context.iter_line_blocks(pieces):
        for number, raw in context.iter_lines(block):
            text = context.decode_text(raw.rstrip(b"\r\n"), number)
            if text and text.strip():
                yield Row(number, {"text": text})


def _join(pieces: Iterator[bytes]) -> bytes | None:
    """Return a whole file, None if it is too long for a document."""
    parts, size = [], 0
    for piece in pieces:
        parts.append(piece)
        size += len(piece)
        if size > row_reader.MAX_RECORD_BYTES:
            return None
    return b"".join(parts)


def _warn_of_lines(context: ReadContext, text: str) -> None:
    """Warn of a text whose lines look like a document each: whole sentences, nothing between."""
    lines = text.splitlines()
    if len(lines) < MIN_DOCUMENT_LINES or not all(map(str.strip, lines)):
        return
    if sum(line.rstrip().endswith(SENTENCE_ENDS) for line in lines) < MIN_SENTENCE_SHARE * len(
        lines
    ):
        return
    file, out = shlex.quote(context.file), shlex.quote(context.file.rpartition(".")[0] + ".jsonl")
    message = f"read as one document, although its {len(lines)} lines look like one each"
    fix = f"for a document a line: `cloudft data convert {file} --lines --to text --out {out}`"
    context.add_warning("DocumentsPerLine", message, fix, 1)


def _add_encoding_error(context: ReadContext, raw: bytes, error: UnicodeDecodeError) -> None:
    """Add an error that names line and column, not the offset in the whole file."""
    start = raw.rfind(b"\n", 0, error.start) + 1
    number = raw.count(b"\n", 0, error.start) + 1
    column = UnicodeDecodeError("utf-8", raw, error.start - start, error.end - start, error.reason)
    context.add_encoding_error(raw[start:], number, column)
