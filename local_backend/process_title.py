"""Change what `ps` shows of a forked process, which would be the command of the one it is from."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Sequence
from pathlib import Path

ARG_START, ARG_END = 48, 49
"""Fields of /proc/PID/stat from 1 on: addresses of the first and after the last argument."""


def set_command_line(words: Sequence[str]) -> None:
    """Show `words` as this process's command line, cut to its first length. Linux only.

    A program that will fork others is started with a long argument, to make room.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        # The second field, the program's name in parentheses, may hold spaces.
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[ARG_START - 3]), int(fields[ARG_END - 3])
        if 0 < start < end:
            text = "\0".join(words).encode(errors="replace")[: end - start - 1]
            ctypes.memmove(start, text.ljust(end - start, b"\0"), end - start)
