"""The end of a job's log for its page, and the lines that follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cloudft.backends import DEFAULT_BACKEND
from cloudft.backends.local.job_folder import LOG
from cloudft.jobs.curves.growing_file import GrowingFile, Position
from cloudft.storage.atomic_files import as_store_error
from cloudft.storage.store import JobRecord
from cloudft.workbench.cloud_details import CloudDetails

TAIL_BYTES = 64 * 1024
MAX_LINES = 400
MAX_CHARACTERS = 2000
"""Of a line. `show all` has the rest."""


@dataclass(frozen=True)
class LogTail:
    """The last lines of a log, and the offset in bytes of what follows. `note` says why none."""

    lines: Sequence[str]
    offset: int = 0
    is_cut: bool = False
    note: str = ""


def read_log_tail(record: JobRecord, cloud: CloudDetails) -> LogTail:
    """Return the end of a job's log. Raise StoreError."""
    if record.backend != DEFAULT_BACKEND:
        detail = cloud.get(record)
        if detail is None:
            return LogTail((), note="reading it from the cloud …")
        lines = [shorten(line.text) for line in detail.log[-MAX_LINES:]]
        return LogTail(lines, note=f"could not look: {detail.reason}" if detail.reason else "")
    file = GrowingFile(record.folder / LOG)
    with as_store_error(f"the log of {record.id} can't be read", record.folder):
        begin = max(0, file.size() - TAIL_BYTES)
        lines, position = read_new_lines(file, Position(begin))
    if begin and len(lines) > 1:
        lines = lines[1:]  # the first one is a part of a line
    is_cut = begin > 0 or len(lines) > MAX_LINES
    return LogTail(lines[-MAX_LINES:], position.offset, is_cut)


def log_path(record: JobRecord) -> Path | None:
    """Return the file of a job's log; None where the log is not on this machine."""
    path = record.folder / LOG
    return path if record.backend == DEFAULT_BACKEND and path.is_file() else None


def read_new_lines(file: GrowingFile, position: Position) -> tuple[list[str], Position]:
    """Return the lines behind a position, each shortened, and the position behind them.

    Raise OSError.
    """
    lines: list[str] = []
    for block, behind in file.read_blocks(position):
        position = behind
        lines += [shorten(line) for line in block.decode("utf-8", "replace").splitlines()]
        lines = lines[-MAX_LINES - 1 :]
    return lines, position


def shorten(line: str) -> str:
    """Return at most MAX_CHARACTERS of a line, and how many are left out."""
    if len(line) <= MAX_CHARACTERS:
        return line
    return f"{line[:MAX_CHARACTERS]} … ({len(line) - MAX_CHARACTERS:,} more characters)"
