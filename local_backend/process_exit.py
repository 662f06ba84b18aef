"""How the programs of the trainer end: with a status at once, or with the process they work for."""

from __future__ import annotations

import _thread
import contextlib
import os
import sys
import threading
import time
from typing import NoReturn

CLEANUP_S = 5.0
"""How long a program that nobody waits for may take to remove what it was writing."""


def exit_now(status: int) -> NoReturn:
    """End this process with `status`, what was printed written out, and nothing else done.

    Python would first take apart all that torch and transformers have loaded: 1.5 seconds of a
    core, a quarter of what a program that answers one question takes. What was begun with a file or
    a child process must be ended before.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # nobody reads it any more
            stream.flush()
    os._exit(status)


def exit_with_parent() -> None:
    """End this process when the other end of standard input is closed, as a kill closes it.

    Otherwise a program would go on working for a command that was killed, beside the next one.
    """
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    _thread.interrupt_main()  # so that what is half-written is removed
    time.sleep(CLEANUP_S)
    os._exit(1)
