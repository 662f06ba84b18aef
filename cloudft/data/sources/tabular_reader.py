"""Read CSV and Parquet: rows with named columns."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Iterator
from importlib import import_module
from typing import IO, Any

from cloudft.data.formats.record import JsonObject
from cloudft.data.sources.row_reader import MAX_RECORD_BYTES, ReadContext, Row

PARQUET_BATCH_ROWS = 1024
"""Rows of a Parquet file that are held at once."""
CHUNK_BYTES = 1024 * 1024


def read_csv_rows(context: ReadContext) -> Iterator[Row]:
    """Yield the rows of a .csv (comma) or .tsv (tab) whose first row names the columns."""
    csv.field_size_limit(MAX_RECORD_BYTES)  # the module's own limit is global, and 128 KiB
    delimiter = "\t" if context.source.path.suffix.lower() == ".tsv" else ","
    with context.source.open() as handle:
        table = csv.reader(_decoded_lines(context, handle), delimiter=delimiter, strict=True)
        try:
            header = next(table, None)
            if header is not None and _check_header(context, header, table.line_num):
                yield from _named_rows(context, header, table)
        except csv.Error as exc:
            fix = "correct the quotes; a quote within a cell is written twice"
            context.add_error("BadCsv", f"not CSV: {exc}", fix, table.line_num)


def _decoded_lines(context: ReadContext, handle: IO[bytes]) -> Iterator[str]:
    """Yield the file's lines as text; bytes that are no UTF-8 are an error, and replaced."""
    for block in context.iter_blocks(handle):
        for number, raw in context.iter_lines(block):
            text = context.decode_text(raw, number)
            yield raw.decode("utf-8", "replace") if text is None else text


def _check_header(context: ReadContext, header: list[str], line: int) -> bool:
    """Return whether every column has a name of its own; if not, add an error."""
    repeated = sorted({name for name in header if header.count(name) > 1})
    if not repeated and all(name.strip() for name in header):
        return True
    message = "a column without a name"
    if repeated:
        message = f"two columns have the name {repeated[0]!r}"
    fix = "give each column a name of its own in the first row"
    context.add_error("WrongColumns", message, fix, line)
    return False


def _named_rows(context: ReadContext, header: list[str], table: Any) -> Iterator[Row]:
    """Yield each row as a mapping; its line is where it starts. Empty lines hold no row."""
    line = table.line_num + 1
    for cells in table:
        if len(cells) == len(header):
            yield Row(line, dict(zip(header, cells, strict=True)))
        elif cells:
            message = f"{len(cells)} cells under {len(header)} columns"
            fix = "put a cell that holds the delimiter into double quotes"
            context.add_error("WrongColumns", message, fix, line)
        if context.is_unreadable:
            return
        line = table.line_num + 1


def read_parquet_rows(context: ReadContext) -> Iterator[Row]:
    """Yield the rows of a Parquet file, through pyarrow. Empty cells count as missing."""
    if importlib.util.find_spec("pyarrow") is None:
        fix = "pip install 'cloudft[parquet]'"
        context.add_error("ParquetUnavailable", "reading Parquet needs pyarrow", fix)
        return
    with context.source.path.open("rb") as handle:
        # pyarrow seeks in the file, so the digest takes a pass of its own.
        while raw := handle.read(CHUNK_BYTES):
            context.digest.update(raw)
        if context.digest.size:
            handle.seek(0)
            yield from _parquet_batches(context, handle)


def _parquet_batches(context: ReadContext, handle: IO[bytes]) -> Iterator[Row]:
    errors = import_module("pyarrow.lib")
    parquet = import_module("pyarrow.parquet")
    number = 0
    try:
        for batch in parquet.ParquetFile(handle).iter_batches(batch_size=PARQUET_BATCH_ROWS):
            for value in batch.to_pylist():
                number += 1
                yield Row(number, _drop_nulls(value))
    except (errors.ArrowException, ValueError) as exc:
        message = f"not Parquet: {str(exc).splitlines()[0][:200]}"
        context.add_error("BadParquet", message, "write the file again", number + 1)


def _drop_nulls(row: JsonObject) -> JsonObject:
    """Return the row without empty fields: a Parquet struct names every field of its type."""
    return {key: _drop_inner_nulls(value) for key, value in row.items() if value is not None}


def _drop_inner_nulls(value: object) -> object:
    if isinstance(value, dict):
        return _drop_nulls(value)
    if isinstance(value, list):
        return [_drop_inner_nulls(item) for item in value]
    return value
