"""Write `data.columns` as a line of a job file, or as options of a command without a job file.

The commands in remedies name the file that they are about.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

LINE_START = "data.columns: {"
OPTIONAL_COLUMNS = frozenset({"system", "context", "reasoning", "history", "tools"})
"""Columns that a record may lack: they say more about a prompt and its answer."""
_PLAIN = re.compile(r"[A-Za-z_][\w.-]*")
_YAML_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})
_LINE = re.compile(r'data\.columns: \{((?:[^{}"]|"(?:[^"\\]|\\.)*")*)\}')
_NEW_FILE = re.compile(r" FILE > ([A-Z]+)\.jsonl")
_ITEM = re.compile(r'(\w+): ("(?:[^"\\]|\\.)*"|[^,"]+)')


def columns_line(columns: Mapping[str, str]) -> str:
    """Return `data.columns: {prompt: question, ...}`, quoted where YAML needs it."""
    pairs = ", ".join(f"{name}: {_quote(column)}" for name, column in columns.items())
    return f"{LINE_START}{pairs}}}"


def _quote(column: str) -> str:
    is_word = _PLAIN.fullmatch(column) and column.lower() not in _YAML_WORDS
    return column if is_word else json.dumps(column, ensure_ascii=False)


def as_column_options(fix: str) -> str:
    """Return a remedy with `--column prompt=question ...` for each line `data.columns: {...}`."""

    def to_options(line: re.Match[str]) -> str:
        columns = _read_columns(line)
        return " ".join(f"--column {shlex.quote(f'{name}={column}')}" for name, column in columns)

    return _LINE.sub(to_options, fix)


def with_own_names(fix: str, names: Mapping[str, str]) -> str:
    """Return a remedy whose lines `data.columns: {...}` name columns as the record does."""

    def rename(line: re.Match[str]) -> str:
        columns = _read_columns(line)
        return columns_line({name: names.get(column, column) for name, column in columns})

    return _LINE.sub(rename, fix)


def _read_columns(line: re.Match[str]) -> list[tuple[str, str]]:
    items = _ITEM.findall(line[1])
    return [(name, json.loads(c) if c.startswith('"') else c.strip()) for name, c in items]


def name_file(fix: str, file: str) -> str:
    """Return a remedy with the file's name in its commands, instead of FILE and *.jsonl."""
    stem = Path(file).name.partition(".")[0]

    def fill_in(command: re.Match[str]) -> str:
        return f" {shlex.quote(file)} > {shlex.quote(f'{stem}-{command[1].lower()}.jsonl')}"

    return _NEW_FILE.sub(fill_in, fix)
