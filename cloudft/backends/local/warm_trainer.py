"""Start trainers from a process that has imported what they need (local_backend/warm.py).

It imports while the job is still checked and staged, and a command that trains several jobs imports
once. Where it can't be used, trainers are started on their own: the result is the same.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cloudft.backends.local.preflight import has_tokenizer
from cloudft.backends.local.request import build_tokenize_request
from cloudft.spec.load import LoadedJob

ROOM = "-" * 1024
"""Room for the command lines of the processes that are forked; see process_title.py."""


def can_start_warm(job: LoadedJob) -> bool:
    """Return whether a job's trainer can be forked: one process, on Linux, nothing to fetch."""
    return sys.platform == "linux" and job.spec.local.processes == 1 and has_tokenizer(job)


class WarmTrainer:
    """A process that imports what trainers of a job need, and forks one for each job."""

    def __init__(self, job: LoadedJob, environment: Mapping[str, str]) -> None:
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
        with contextlib.suppress(OSError):
            self._link.send(json.dumps(_describe(job)).encode())

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


def _describe(job: LoadedJob) -> dict[str, Any]:
    """Return what the imports depend on."""
    models = [build_tokenize_request(job, preview=False)["model"]["weights"]]
    return {"method": job.spec.local.method, "fsdp": job.spec.local.fsdp, "models": models}
