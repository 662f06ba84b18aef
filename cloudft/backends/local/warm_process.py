"""Start trainers from a process that has imported what they need (local_backend/warm.py).

It imports while the job is still checked and staged, and a command that trains several jobs imports
once. Where it can't be used, trainers are started on their own: the result is the same.

`submit` imports this module before it has read the job file, so it imports little itself.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from cloudft.backends.local.environment import trainer_environment
from cloudft.storage.home import Home

ROOM = "-" * 1024
"""Room for the command lines of the processes that are forked; see process_title.py."""


class WarmProcess:
    """A process that imports what trainers of a job need, and forks one for each job."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._is_starting = False
        with theirs:
            fd = str(theirs.fileno())
            self._process = subprocess.Popen(
                [sys.executable, "-m", "local_backend.warm", "--socket-fd", fd, "--", ROOM],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env=self._environment,
            )

    def describe(self, jobs: Mapping[str, object]) -> None:
        """Send what the imports depend on: the jobs' `method`, `fsdp` and `models`."""
        with contextlib.suppress(OSError):  # it has exited, which `start` notices
            self._link.send(json.dumps(jobs).encode())

    def start(self, job_dir: Path, lock: int, log: int, environment: Mapping[str, str]) -> bool:
        """Start the job's supervisor; return False where it has to be started on its own.

        The supervisor inherits `lock` and writes to `log`. Waits until the imports are done.
        """
        if dict(environment) != self._environment:
            return False
        request = json.dumps({"jobDir": str(job_dir)}).encode()
        try:
            self._is_starting = True
            socket.send_fds(self._link, [request], [lock, log])
            # The supervisor answers, and closes its end. So an end without an answer means that
            # there is none.
            reply = self._link.recv(1024)
        except OSError:
            reply = b""
        self._is_starting = False
        return bool(reply)

    def close(self) -> None:
        """End the process. Jobs that it has started go on."""
        self._link.close()
        # A request that was not answered (Ctrl-C) is still carried out; then it ends by itself.
        if not self._is_starting:
            self._process.kill()
            self._process.wait()


_early: list[WarmProcess] = []
"""The process that was started before the job was known, if there is one."""


@contextlib.contextmanager
def start_early() -> Iterator[None]:
    """Start the process before the job is known; end it where no job took it."""
    if sys.platform != "linux" or find_spec("torch") is None:
        yield
        return
    _early.append(WarmProcess(trainer_environment(Home.from_environ(), hub=False)))
    try:
        yield
    finally:
        process = take_early()
        if process is not None:
            process.close()


def take_early() -> WarmProcess | None:
    """Return the process that was started early; the caller closes it."""
    return _early.pop() if _early else None
