"""Memory that a process and its children have resident, which is what Lambda's limit is about.

RLIMIT_AS limits reserved addresses instead. Measured on two cores: `import numpy` has 25 MB
resident and reserves 139 MB; `import torch` has 224 MB resident and fails under an RLIMIT_AS of
512 MB.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

PROC = Path("/proc")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def resident_bytes(pid: int) -> int | None:
    """Return the resident bytes of a process and its descendants; None where /proc has none.

    Pages that several of them share are counted once.
    """
    family = [pid]
    for member in family:  # grows while it is read
        family += _children(member)
    if len(family) == 1:
        return _resident(pid)
    return sum(filter(None, map(_proportional, family)))


def _resident(pid: int) -> int | None:
    try:
        return int((PROC / str(pid) / "statm").read_bytes().split()[1]) * PAGE_BYTES
    except (OSError, IndexError):
        return None


def _children(pid: int) -> list[int]:
    children: list[int] = []
    with contextlib.suppress(OSError):
        for task in (PROC / str(pid) / "task").iterdir():
            with contextlib.suppress(OSError):
                children += map(int, (task / "children").read_bytes().split())
    return children


def _proportional(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        for line in (PROC / str(pid) / "smaps_rollup").read_bytes().splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    return _resident(pid)
