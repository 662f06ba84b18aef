"""End the trainer's programs: at once with a status, or together with the parent process."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from typing import NoReturn

PARENT_ENDED = signal.SIGUSR2
"""Raises KeyboardInterrupt in a program whose parent has ended."""
CLEANUP_S = 5.0
"""Seconds that a program without a parent may take to remove what it was writing."""


def exit_now(status: int) -> NoReturn:
    """End this process with `status` after flushing its output, without Python's own cleanup.

    Python would first tear down everything that torch and transformers have loaded: 1.5 seconds of
    a core, a quarter of the run time of a program that answers one request. Close open files and
    wait for child processes before calling this.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # the reader may be gone
            stream.flush()
    os._exit(status)


def exit_with_parent() -> None:
    """End this process when the other end of standard input is closed.

    Killing the parent closes it. Otherwise a program would keep working for a command that was
    killed, beside the next one. Call it in the main thread.
    """
    # Not SIGINT: a shell starts background commands with SIGINT ignored, and what is ignored does
    # not interrupt.
    signal.signal(PARENT_ENDED, signal.default_int_handler)
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    # KeyboardInterrupt in the main thread lets it remove what is half-written. A main thread that
    # is inside a long kernel does not get it in time, and is ended anyway.
    os.kill(os.getpid(), PARENT_ENDED)
    time.sleep(CLEANUP_S)
    os._exit(1)
