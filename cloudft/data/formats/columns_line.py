"""Write `data.columns` as a line of a job file, or as options of a command without a job file."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import replace

from cloudft.types import Finding

OPTIONAL_COLUMNS = frozenset({"system", "context", "reasoning", "history", "tools"})
"""Columns that a record may lack: they say more about a prompt and its answer."""
_PLAIN = re.compile(r"[A-Za-z_][\w.-]*")
_YAML_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})
_LINE = re.compile(
    r'data\.columns: \{((?:[^{}"]|"(?:[^"\\]|\\.)*")*)\}(?: with customization_type: (\w+))?'
)
_FORMATS = {"FINE_TUNING": "messages", "CONTINUED_PRE_TRAINING": "text"}
"""Formats that commands write, by the customization type that is trained on them."""
_TYPE = re.compile(r"(?:set )?customization_type: (\w+)")
_ITEM = re.compile(r'(\w+): ("(?:[^"\\]|\\.)*"|[^,"]+)')


def columns_line(columns: Mapping[str, str]) -> str:
    """Return `data.columns: {prompt: question, ...}`, quoted where YAML needs it."""
    pairs = ", ".join(f"{name}: {_quote(column)}" for name, column in columns.items())
    return f"data.columns: {{{pairs}}}"


def _quote(column: str) -> str:
    is_word = _PLAIN.fullmatch(column) and column.lower() not in _YAML_WORDS
    return column if is_word else json.dumps(column, ensure_ascii=False)


def for_command(fix: str, command: str = "", type_option: str = "") -> str:
    """Return a remedy in the words of a command that has no job file.

    A line `data.columns: {...}` becomes `--column prompt=question ...`, after `command` if it is
    given. A customization type becomes the value of `type_option`: `--type`, or `--to` where the
    command writes a format. Without either it stays.
    """

    def to_option(type: str) -> str:
        return f"{type_option} {_FORMATS.get(type, type) if type_option == '--to' else type}"

    def to_options(line: re.Match[str]) -> str:
        columns = _read_columns(line)
        words = [f"--column {shlex.quote(f'{name}={column}')}" for name, column in columns]
        words += [to_option(line[2])] if line[2] and type_option else []
        options = " ".join(words)
        return f"`{command} {options}`" if command else options

    def to_type(match: re.Match[str]) -> str:
        # These commands write jobs of the types in _FORMATS; another one is for the job file.
        return to_option(match[1]) if match[1] in _FORMATS else match[0]

    fix = _LINE.sub(to_options, fix)
    return _TYPE.sub(to_type, fix) if type_option else fix


def with_options(
    findings: Iterable[Finding], command: str = "", type_option: str = ""
) -> tuple[Finding, ...]:
    """Return the findings with remedies for a command that has no job file."""
    return tuple(
        [replace(f, fix=f.fix and for_command(f.fix, command, type_option)) for f in findings]
    )


def _read_columns(line: re.Match[str]) -> list[tuple[str, str]]:
    items = _ITEM.findall(line[1])
    return [(name, json.loads(c) if c.startswith('"') else c.strip()) for name, c in items]


def with_own_names(fix: str, names: Mapping[str, str]) -> str:
    """Return a remedy whose lines `data.columns: {...}` name columns as the record does."""

    def rename(line: re.Match[str]) -> str:
        columns = {name: names.get(column, column) for name, column in _read_columns(line)}
        end = f" with customization_type: {line[2]}" if line[2] else ""
        return f"{columns_line(columns)}{end}"

    return _LINE.sub(rename, fix)
