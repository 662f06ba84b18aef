"""Do a part of a test in a fork of its process, which kills itself at a chosen point."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

NEVER_KILLED = 10**6


def fork_and_kill(
    work: Callable[[], Any], below: Path, point: int = NEVER_KILLED
) -> tuple[bool, int]:
    """Do `work` in a fork that is killed before its Nth operation on a path below `below`.

    N is `point`. Operations are those that Python audits: open, mkdir, rename, remove, chmod ...
    Return whether the fork was killed, and how many operations it did.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _work_until_killed(work, str(below), point, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        count = len(stream.read())
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == -signal.SIGKILL, count


def _work_until_killed(work: Callable[[], Any], below: str, point: int, report: int) -> None:
    done = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal done
        if not (event == "open" or event.startswith(("os.", "shutil."))):
            return
        if not any(isinstance(arg, (str, Path)) and str(arg).startswith(below) for arg in args):
            return
        if done == point:
            os.kill(os.getpid(), signal.SIGKILL)
        done += 1
        os.write(report, b".")

    sys.addaudithook(hook)
    try:
        work()
    except BaseException:
        os._exit(1)
    os._exit(0)
