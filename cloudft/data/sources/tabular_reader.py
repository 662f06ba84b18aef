"""CSV and Parquet: rows with named columns."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from cloudft.data.sources.row_reader import MAX_RECORD_BYTES, ReadContext, Row

PARQUET_BATCH_ROWS = 1024  # rows of a Parquet file that are held at once
CHUNK_BYTES = 1024 * 1024


def read_csv_rows(reading: ReadContext) -> Iterator[Row]:
    """The rows of a .csv (comma) or .tsv (tab) whose first row names the columns."""
    csv.field_size_limit(MAX_RECORD_BYTES)  # the module's own limit is global, and 128 KiB
    delimiter = "\t" if reading.source.path.suffix.lower() == ".tsv" else ","
    with reading.source.open() as handle:
        table = csv.reader(_decoded(reading, handle), delimiter=delimiter, strict=True)
        try:
            header = next(table, None)
            if header is not None and _header_fits(reading, header, table.line_num):
                yield from _named(reading, header, table)
        except csv.Error as exc:
            fix = "correct the quotes; a quote within a cell is written twice"
            reading.add_error("BadCsv", f"not CSV: {exc}", fix, table.line_num)


def _decoded(reading: ReadContext, handle: Any) -> Iterator[str]:
    """The file's lines as text; a bad one is noted and goes on with its bytes replaced."""
    for block in reading.iter_blocks(handle):
        for number, raw in reading.iter_lines(block):
            text = reading.decode_text(raw, number)
            yield raw.decode("utf-8", "replace") if text is None else text


def _header_fits(reading: ReadContext, header: list[str], line: int) -> bool:
    """True when every column has a name of its own."""
    twice = sorted({name for name in header if header.count(name) > 1})
    if not twice and all(name.strip() for name in header):
        return True
    message = f"the column {twice[0]!r} stands twice" if twice else "a column without a name"
    fix = "give each column a name of its own in the first row"
    reading.add_error("WrongColumns", message, fix, line)
    return False


def _named(reading: ReadContext, header: list[str], table: Any) -> Iterator[Row]:
    """Each row as a mapping; its line is where it starts. Empty lines hold no row."""
    line = table.line_num + 1
    for cells in table:
        if len(cells) == len(header):
            yield Row(line, dict(zip(header, cells, strict=True)))
        elif cells:
            message = f"{len(cells)} cells under {len(header)} columns"
            fix = "put a cell that holds the delimiter into double quotes"
            reading.add_error("WrongColumns", message, fix, line)
        line = table.line_num + 1


def read_parquet_rows(reading: ReadContext) -> Iterator[Row]:
    """The rows of a Parquet file, through pyarrow. Empty cells count as not there."""
    if importlib.util.find_spec("pyarrow") is None:
        fix = "pip install 'cloudft[parquet]'"
        reading.add_error("ParquetUnavailable", "reading Parquet needs pyarrow", fix)
        return
    with reading.source.path.open("rb") as handle:
        while raw := handle.read(CHUNK_BYTES):
            reading.digest.update(raw)
        if reading.digest.size:
            handle.seek(0)
            yield from _batches(reading, handle)


def _batches(reading: ReadContext, handle: Any) -> Iterator[Row]:
    errors = import_module("pyarrow.lib")
    parquet = import_module("pyarrow.parquet")
    number = 0
    try:
        for batch in parquet.ParquetFile(handle).iter_batches(batch_size=PARQUET_BATCH_ROWS):
            for value in batch.to_pylist():
                number += 1
                yield Row(number, _without_nulls(value))
    except (errors.ArrowException, ValueError) as exc:
        message = f"not Parquet: {str(exc).splitlines()[0][:200]}"
        reading.add_error("BadParquet", message, "write the file anew", number + 1)


def _without_nulls(value: Any) -> Any:
    """A struct of Parquet names every field of its type; those without a value go."""
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
