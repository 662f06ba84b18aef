"""Complete the commands of remedies: the file's name, and how that file holds its records."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import PurePath

from cloudft.data.formats.nested_records import jq_path
from cloudft.data.sources.json_layout import detect_layout
from cloudft.data.sources.source_files import S3Object, SourceFile

START_BYTES = 64 * 1024
_COMMAND = re.compile(r"jq (-cs?) '([^']*)' FILE > ([A-Z]+)\.jsonl")
_TABLE_ROWS = (
    "import csv, json; rows = csv.DictReader(open({file}, newline='', encoding='utf-8-sig'){tab});"
    " [print(json.dumps(row)) for row in rows]"
)
_PARQUET_ROWS = (
    "import json, pyarrow.{module} as tables;"
    " [print(json.dumps(row, default=str)) for row in tables.read_table({file}).to_pylist()]"
)
_ARROW_MODULES = {"parquet": "parquet", "arrow": "feather"}


def complete_commands(fix: str, source: SourceFile) -> str:
    """Return a remedy whose commands read this file, instead of FILE, record by record."""
    if " FILE > " not in fix:
        return fix
    prefix = _records_path(source)
    stem = PurePath(source.display_name).name.partition(".")[0]

    def complete(command: re.Match[str]) -> str:
        options, program, name = command.groups()
        if prefix and options == "-cs":
            options, program = "-c", program.replace("messages: .", f"messages: [{prefix}]")
        elif prefix:
            program = f"{prefix} | {program}"
        new = shlex.quote(f"{stem}-{name.lower()}.jsonl")
        before, file = _read_command(source)
        return f"{before}jq {options} '{program}'{file} > {new}"

    return _COMMAND.sub(complete, fix)


def _read_command(source: SourceFile) -> tuple[str, str]:
    """Return what is before and after the program of jq, for it to get a file's records."""
    name = source.display_name
    if isinstance(source, S3Object):
        return f"aws s3 cp {shlex.quote(name)} - | ", ""
    if source.file_type in _ARROW_MODULES:
        module = _ARROW_MODULES[source.file_type]
        code = _PARQUET_ROWS.format(module=module, file=repr(name))
        # The Python that cloudft runs in has pyarrow: it has read the file.
        return f"{shlex.quote(sys.executable)} -c {_quote(code)} | ", ""
    if source.file_type == "csv":
        tab = ", delimiter=chr(9)" if name.endswith(".tsv") else ""
        code = _TABLE_ROWS.format(file=repr(name), tab=tab)
        return f"python3 -c {_quote(code)} | ", ""
    return "", f" {shlex.quote(name)}"


def _quote(code: str) -> str:
    """Return code as a word of a shell, in double quotes if they change nothing in it."""
    return shlex.quote(code) if re.search(r'["$`!]', code) else f'"{code}"'


def _records_path(source: SourceFile) -> str:
    """Return the path to each record of a file in jq; "" for a file of records alone."""
    if source.file_type != "jsonl":
        return ""
    try:
        with source.open() as handle:
            start = handle.read(START_BYTES)
    except OSError:
        return ""
    layout = detect_layout(start.removeprefix(b"\xef\xbb\xbf"), is_whole=len(start) < START_BYTES)
    if layout.kind != "array":
        return ""
    outer = jq_path([layout.key]) if layout.key else "."
    return f"{outer}[]{jq_path([layout.row_key]) if layout.row_key else ''}" if outer else ""
