"""Start, supervise and end the process that runs a grader's code."""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local_backend.grading.resident_memory import resident_bytes

WORKER = Path(__file__).with_name("worker.py")
INIT_SECONDS = 10.0
"""Lambda gives a function's initialization 10 seconds, and then the function's own time-out."""
TICK_S = 0.03
"""Seconds between two looks at the memory of a grader that works."""
TRACE_SIGNAL, TRACE_S = signal.SIGUSR1, 0.1
"""The signal at which the worker writes its stack, and the time it gets for that."""
OUTPUT_BYTES = 4000
"""Bytes kept of what a grader prints."""
MB = 1024 * 1024

ALLOWED_NAMES = frozenset(
    {
        *("PATH", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TMP", "TEMP", "LD_LIBRARY_PATH"),
        *("VIRTUAL_ENV", "CONDA_PREFIX", "NLTK_DATA", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    }
)
ALLOWED_PREFIXES = ("LC_", "PYTHON", "DYLD_", "OMP_", "MKL_", "OPENBLAS_", "NUMEXPR_")
SECRET_NAME = re.compile(r"(?:^|_)(?:TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|APIKEY|KEY)(?:_|$)")
"""A name with such a word is kept out, whatever it begins with."""


@dataclass(frozen=True)
class GraderSettings:
    """The file of a grader, and the limits of the Lambda function that it is on AWS."""

    path: Path
    timeout_seconds: float = 30.0
    memory_mb: int = 512
    handler: str = "lambda_handler"


@dataclass(frozen=True)
class HandlerResult:
    """What a handler returned. `seconds` is the time inside the handler."""

    value: object
    seconds: float
    peak_bytes: int


@dataclass
class WorkerFailure(Exception):
    """Raised for a handler that did not return. `kind` says why; other fields where known.

    `kind` is one of `syntax`, `import`, `no-handler`, `slow-import` (the file is unusable),
    `raised`, `exit`, `not-json`, `timeout`, `memory`, `died`. `text` and `output` may quote what
    the handler was given.
    """

    kind: str
    type: str = ""
    text: str = ""
    line: int | None = None
    source: str = ""
    index: int | None = None
    names: tuple[str, ...] = ()
    output: str = field(default="", repr=False)

    @property
    def is_in_file(self) -> bool:
        """Return whether no sample can be graded with this file."""
        return self.kind in ("syntax", "import", "no-handler", "slow-import")


def worker_environment(settings: GraderSettings, scratch: str) -> dict[str, str]:
    """Return the environment of a grader: an allow-list, and the variables that Lambda sets.

    Credentials are not in it, nor the home folder where they may be. The seed of hashes is fixed,
    so that a grader that depends on the order of a set repeats its rewards.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in ALLOWED_NAMES
        or (name.startswith(ALLOWED_PREFIXES) and not SECRET_NAME.search(name))
    }
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    return kept | {
        "HOME": scratch,
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "utf-8:backslashreplace",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_LAMBDA_FUNCTION_NAME": settings.path.stem,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(settings.memory_mb),
        "LAMBDA_TASK_ROOT": str(settings.path.parent),
        "_HANDLER": f"{settings.path.stem}.{settings.handler}",
    }


class WorkerProcess:
    """A process that has loaded a grader's file. Not thread-safe. Raise WorkerFailure."""

    def __init__(self, settings: GraderSettings) -> None:
        self._settings = settings
        self._output = bytearray()
        self._received = bytearray()
        with contextlib.ExitStack() as stack:
            self._scratch = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="cloudft-grader-", ignore_cleanup_errors=True)
            )
            self._start(stack)
            stack.callback(self._kill)
            self._resources = stack.pop_all()
        try:
            self._wait_for_reply(max(INIT_SECONDS, settings.timeout_seconds), "slow-import")
        except BaseException:
            self.close()
            raise

    def _start(self, stack: contextlib.ExitStack) -> None:
        self._channel, channel = map(stack.enter_context, socket.socketpair())
        lifeline, lifeline_here = os.pipe()
        self._printed, printed = os.pipe()
        ends = (lifeline_here, self._printed)
        for descriptor in ends:
            stack.callback(os.close, descriptor)
        settings = self._settings
        arguments = (channel.fileno(), lifeline, settings.path.absolute(), settings.handler)
        try:
            self._process = subprocess.Popen(
                [sys.executable, str(WORKER), *map(str, arguments), str(settings.timeout_seconds)],
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=printed,
                pass_fds=(channel.fileno(), lifeline),
                start_new_session=True,
                cwd=self._scratch,
                env=worker_environment(settings, self._scratch),
            )
        finally:
            channel.close()
            os.close(lifeline)
            os.close(printed)
        os.set_blocking(self._printed, False)

    def call(self, event: object) -> HandlerResult:
        """Return what the handler returns for an event. Raise WorkerFailure.

        After `timeout`, `memory` and `died` the process is gone.
        """
        request = {"event": event, "requestId": str(uuid.uuid4())}
        self._output.clear()
        limit = self._settings.timeout_seconds
        self._channel.settimeout(limit)
        # A process that does not read is noticed by its missing reply.
        with contextlib.suppress(OSError):
            self._channel.sendall(json.dumps(request).encode("ascii") + b"\n")
        reply = self._wait_for_reply(limit, "timeout")
        return HandlerResult(reply["value"], reply["seconds"], reply["peakBytes"])

    def close(self) -> None:
        """Kill the process and its children."""
        self._resources.close()

    def _kill(self) -> None:
        # The group outlives its leader while a child of the grader runs.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _wait_for_reply(self, limit: float, late: str) -> dict[str, Any]:
        deadline = time.monotonic() + limit
        with selectors.DefaultSelector() as selector:
            selector.register(self._channel, selectors.EVENT_READ)
            selector.register(self._printed, selectors.EVENT_READ)
            while b"\n" not in self._received:
                ready = {key.fileobj for key, _ in selector.select(TICK_S)}
                if self._printed in ready and not self._read_printed():
                    selector.unregister(self._printed)
                if self._channel in ready:
                    self._receive()
                elif self._process.poll() is not None:
                    raise self._ended()
                self._check_memory()
                if time.monotonic() > deadline:
                    raise self._failure(late, line=self._find_line())
        line, _, rest = bytes(self._received).partition(b"\n")
        self._received[:] = rest
        self._read_printed()
        return self._checked(json.loads(line))

    def _receive(self) -> None:
        try:
            chunk = self._channel.recv(1 << 16)
        except OSError:
            chunk = b""
        if not chunk:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1.0)
            raise self._ended()
        self._received += chunk

    def _read_printed(self) -> bool:
        """Keep the end of what the grader has printed. Return False when nothing can follow."""
        with contextlib.suppress(BlockingIOError):
            for _ in range(16):  # a grader that prints without end must not hold its supervisor
                chunk = os.read(self._printed, 1 << 16)
                if not chunk:
                    return False
                self._output += chunk
                del self._output[:-OUTPUT_BYTES]
        return True

    def _check_memory(self) -> None:
        used = resident_bytes(self._process.pid)
        if used is not None and used > self._settings.memory_mb * MB:
            raise self._failure("memory", text=f"{used // MB} MB")

    def _checked(self, reply: dict[str, Any]) -> dict[str, Any]:
        failure = reply.get("failure")
        if failure is not None:
            known = WorkerFailure.__dataclass_fields__
            raise self._failure(**{key: failure[key] for key in failure if key in known})
        # A peak between two looks.
        if reply["peakBytes"] > self._settings.memory_mb * MB:
            raise self._failure("memory", text=f"{reply['peakBytes'] // MB} MB")
        return reply

    def _find_line(self) -> int | None:
        """Return the line of the grader's file that the process is in."""
        before = len(self._output)
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(TRACE_SIGNAL)
        time.sleep(TRACE_S)
        self._read_printed()
        stack = bytes(self._output).rpartition(b"Current thread")[2].decode("utf-8", "replace")
        name = re.escape(str(self._settings.path.absolute()))
        line = re.search(rf'File "{name}", line (\d+)', stack)
        del self._output[before:]
        return None if line is None else int(line[1])

    def _ended(self) -> WorkerFailure:
        self._read_printed()
        code = self._process.poll()
        if code is not None and code < 0:
            text = f"signal {-code} ({signal.Signals(-code).name})"
        else:
            text = f"status {code}"
        return self._failure("died", text=text)

    def _failure(self, kind: str, **fields: Any) -> WorkerFailure:
        output = self._output.decode("utf-8", "replace")
        return WorkerFailure(kind, **fields, output=output)
