"""Run a command until standard input is closed: `python -m cloudft.runtimes.supervise COMMAND`.

The caller holds the other end of the pipe, so the command ends with it, however it ends: also after
`kill -9`, when nothing of the caller can run any more.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

GRACE_S = 10.0
"""How long a command may take to end by itself."""


def run_supervised(command: Sequence[str]) -> int:
    """Run the command in a process group of its own; return its exit code."""
    # The child must not hold the pipe: its own end would keep it open.
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    watcher = threading.Thread(target=_end_with_stdin, args=[child], daemon=True)
    watcher.start()
    try:
        return child.wait()
    except KeyboardInterrupt:
        _end(child)
        return 130
    finally:
        # What the command has started may outlive it: the workers of a server that crashed.
        _signal_group(child, signal.SIGKILL)


def _end_with_stdin(child: subprocess.Popen[bytes]) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the command, by force after a while."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        _signal_group(child, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(GRACE_S)
            return


def _signal_group(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to all processes of the command, if there are any left."""
    # macOS has PermissionError for a group whose processes have all ended.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


if __name__ == "__main__":
    sys.exit(run_supervised(sys.argv[1:]))
