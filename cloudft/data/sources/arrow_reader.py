"""Read Parquet and Arrow files through pyarrow, in batches of rows."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from itertools import chain
from typing import IO, Any

from cloudft.data.sources.arrow_values import RowDecoder
from cloudft.data.sources.row_reader import ReadContext, Row, TakeRows

BATCH_ROWS = 1024
"""Rows that are held at once as Python objects."""
CHUNK_BYTES = 1024 * 1024
FILE_MAGIC, OLD_FEATHER_MAGIC = b"ARROW1", b"FEA1"
NANOSECONDS = "ns"


def read_parquet_rows(context: ReadContext, take_rows: TakeRows | None = None) -> Iterator[Row]:
    """Yield the rows of a Parquet file. Columns that are null in a row are None.

    `take_rows` gets rows of texts alone; what it takes is not yielded.
    """
    return _read(context, _open_parquet, "Parquet", take_rows)


def read_arrow_rows(context: ReadContext, take_rows: TakeRows | None = None) -> Iterator[Row]:
    """Yield the rows of an Arrow file: the stream that datasets saves, or a file (Feather)."""
    return _read(context, _open_arrow, "an Arrow file", take_rows)


def _read(
    context: ReadContext, open_table: Any, kind: str, take_rows: TakeRows | None
) -> Iterator[Row]:
    if importlib.util.find_spec("pyarrow") is None:
        fix = "pip install 'cloudft[parquet]'"
        message = f"reading {kind} needs pyarrow"
        context.add_error("ParquetUnavailable", message, fix)
        return
    with context.source.path.open("rb") as handle:
        # pyarrow seeks in the file, so the digest takes a pass of its own.
        while raw := handle.read(CHUNK_BYTES):
            context.digest.update(raw)
        if context.digest.size:
            handle.seek(0)
            yield from _read_table(context, partial(open_table, handle), kind, take_rows)


def _read_table(
    context: ReadContext, open_table: Any, kind: str, take_rows: TakeRows | None
) -> Iterator[Row]:
    errors = import_module("pyarrow.lib")
    number = 0
    try:
        decoder, batches = open_table()
        _note_classes(context, decoder)
        for batch in batches:
            # The first row is read singly: it shows the format of the others.
            if number and take_rows and _take(decoder, batch, take_rows, number + 1):
                number += batch.num_rows
                continue
            for value in _without_nanoseconds(batch).to_pylist():
                number += 1
                yield Row(number, decoder.decode(value))
    except _OldFeather:
        fix = "read it with an old pandas, and write it with `to_parquet`"
        context.add_error("BadParquet", "a Feather file of version 1, which nothing reads", fix)
    except (errors.ArrowException, ValueError) as exc:
        message = f"not {kind}: {str(exc).splitlines()[0][:200]}"
        context.add_error("BadParquet", message, "write the file again", number + 1)


def _take(decoder: RowDecoder, batch: Any, take_rows: TakeRows, line: int) -> bool:
    """Return whether a batch holds texts alone, and the caller takes it as a whole."""
    types = import_module("pyarrow.types")
    if decoder.has_decoders or not all(
        (types.is_string(column.type) or types.is_large_string(column.type))
        and not column.null_count
        for column in batch.columns
    ):
        return False
    rows = list(zip(*(column.to_pylist() for column in batch.columns), strict=True))
    return take_rows(batch.schema.names, rows, range(line, line + len(rows)))


class _OldFeather(Exception):
    """A Feather file of version 1."""


def _open_parquet(handle: IO[bytes]) -> tuple[RowDecoder, Iterator[Any]]:
    file = import_module("pyarrow.parquet").ParquetFile(handle)
    leaves = [file.schema.column(i).logical_type.type == "JSON" for i in range(len(file.schema))]
    batches = file.iter_batches(batch_size=BATCH_ROWS)
    return RowDecoder(file.schema_arrow, leaves), _split_first(batches)


def _open_arrow(handle: IO[bytes]) -> tuple[RowDecoder, Iterator[Any]]:
    ipc = import_module("pyarrow.ipc")
    magic = handle.read(len(FILE_MAGIC))
    handle.seek(0)
    if magic.startswith(OLD_FEATHER_MAGIC):
        raise _OldFeather
    if magic == FILE_MAGIC:
        file = ipc.open_file(handle)
        batches = map(file.get_batch, range(file.num_record_batches))
        schema = file.schema
    else:
        batches = stream = ipc.open_stream(handle)
        schema = stream.schema
    return RowDecoder(schema), _split_first(chain.from_iterable(map(_cut, batches)))


def _split_first(batches: Iterator[Any]) -> Iterator[Any]:
    """Yield the first row alone, then the others in batches."""
    is_first = True
    for batch in batches:
        if is_first:
            yield batch.slice(0, 1)
            batch = batch.slice(1)
            is_first = False
        if batch.num_rows:
            yield batch


def _cut(batch: Any) -> Iterator[Any]:
    """Yield a batch in pieces: a file may be a single one."""
    return (batch.slice(start, BATCH_ROWS) for start in range(0, batch.num_rows, BATCH_ROWS))


def _without_nanoseconds(batch: Any) -> Any:
    """Return the batch with times in microseconds, the finest that Python's own types have."""
    schema, pyarrow = batch.schema, import_module("pyarrow")
    for at, field in enumerate(schema):
        if getattr(field.type, "unit", None) == NANOSECONDS:
            coarse = (
                pyarrow.timestamp("us", field.type.tz)
                if pyarrow.types.is_timestamp(field.type)
                else pyarrow.time64("us")
                if pyarrow.types.is_time(field.type)
                else pyarrow.duration("us")
            )
            column = batch.column(at).cast(coarse, safe=False)
            batch = batch.set_column(at, field.name, column)
    return batch


def _note_classes(context: ReadContext, decoder: RowDecoder) -> None:
    if decoder.class_columns:
        names = ", ".join(repr(name[:40]) for name in decoder.class_columns)
        message = f"numbers of classes are replaced by their names, which the file has: {names}"
        context.findings.add(
            "ClassNames", message, "", file=context.source.display_name, severity="note"
        )
