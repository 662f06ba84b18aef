"""Start trainers from a process that has imported what they need (local_backend/warm.py).

It imports while the job is still checked and staged, and a command that trains several jobs imports
once. Where it can't be used, trainers are started on their own: the result is the same.

`submit` imports this module before it has read the job file, so it imports little itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
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

    def start(
        self,
        job_dir: Path,
        lock: int,
        log: int,
        environment: Mapping[str, str],
        threads: int | None = None,
    ) -> bool:
        """Start the job's supervisor; return False where it has to be started on its own.

        The supervisor inherits `lock` and writes to `log`. `threads` are what the trainer computes
        with; None for all cores. Waits until the imports are done.
        """
        message = {"jobDir": str(job_dir), "threads": threads}
        return self._fork(message, [lock, log], environment) is not None

    def start_generate(
        self, job_dir: Path, noise: int, environment: Mapping[str, str]
    ) -> ForkedProgram | None:
        """Start a program that answers for a job's models; return None where that can't be done.

        `noise` is the descriptor of its standard error.
        """
        if not _has_process_handles():
            return None
        (their_input, our_output), (our_input, their_output) = os.pipe(), os.pipe()
        try:
            streams = [their_input, their_output, noise]
            pid = self._fork({"answer": str(job_dir)}, streams, environment)
        finally:
            os.close(their_input)
            os.close(their_output)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):  # it has ended already
                return ForkedProgram(pid, our_output, our_input)
        os.close(our_input)
        os.close(our_output)
        return None

    def _fork(
        self, message: Mapping[str, object], fds: Sequence[int], environment: Mapping[str, str]
    ) -> int | None:
        """Return the id of the process that was forked; None where there is none."""
        if dict(environment) != self._environment:
            return None
        try:
            self._is_starting = True
            socket.send_fds(self._link, [json.dumps(message).encode()], list(fds))
            # The forked process answers, and closes its end. So an end without an answer means
            # that there is none.
            reply = self._link.recv(1024)
        except OSError:
            reply = b""
        self._is_starting = False
        return int(json.loads(reply)["pid"]) if reply else None

    def close(self) -> None:
        """End the process. Jobs that it has started go on."""
        self._link.close()
        # A request that was not answered (Ctrl-C) is still carried out; then it ends by itself.
        if not self._is_starting:
            self._process.kill()
            self._process.wait()


def _has_process_handles() -> bool:
    """Return whether a process can be held by a descriptor: not on old kernels, nor where Python
    was built without it.
    """
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


class ForkedProgram:
    """A program that is no child of this process, with what is used of `subprocess.Popen`."""

    def __init__(self, pid: int, stdin: int, stdout: int) -> None:
        self.pid = pid
        # It stays the same process even when its id is used again.
        self._pidfd = os.pidfd_open(pid)
        self.stdin = os.fdopen(stdin, "w", encoding="utf-8")
        self.stdout = os.fdopen(stdout, encoding="utf-8")

    def poll(self) -> int | None:
        """Return None while it runs, then 0: its exit status is its parent's."""
        return 0 if self._has_ended(0.0) else None

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def communicate(self) -> None:
        """Wait until it has ended, and close its pipes."""
        self._has_ended(None)
        with contextlib.suppress(BrokenPipeError):
            self.stdin.close()
        self.stdout.close()
        os.close(self._pidfd)

    def _has_ended(self, seconds: float | None) -> bool:
        return bool(select.select([self._pidfd], [], [], seconds)[0])


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
