"""How the programs of the trainer end."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import NoReturn


def leave(status: int) -> NoReturn:
    """End this process with `status`, what was printed written out, and nothing else done.

    Python would first take apart all that torch and transformers have loaded: 1.5 seconds of a
    core, a quarter of what a program that answers one question takes. What was begun with a file or
    a child process must be ended before.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # nobody reads it any more
            stream.flush()
    os._exit(status)
