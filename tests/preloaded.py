"""A Python interpreter that forks `-m local_backend.*` from a process with torch already loaded.

Loading torch and transformers takes some five seconds of a core; training a tiny model takes a
fraction of one. The forked process has its own code, streams, folder, environment and exit code.
Our own modules are imported in each fork. The process that a test starts waits for its fork, passes
signals to it, and exits as it does; the fork dies with it.

`install_interpreter` writes the interpreter. forked_cli.py gives it to what it starts. A test that
needs trainers started without it takes the fixture `plain_starts`.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

PYTHON = "TESTS_PYTHON"
"""The environment variable with the interpreter's path; without it, tests use their own."""
REAL_PYTHON = sys.executable
THIRD_PARTY = (
    *("torch", "torch.optim", "torch._dynamo", "transformers", "transformers.modeling_utils"),
    *("transformers.models.auto.modeling_auto", "transformers.models.auto.tokenization_auto"),
    *("transformers.models.llama.modeling_llama", "transformers.generation", "jinja2"),
    *("transformers.tokenization_utils_tokenizers", "safetensors.torch"),
)
NOT_FORKED = {"local_backend.sagemaker"}
"""Programs that are not forked: this one only starts others, and is killed with their group."""
MAX_SOCKET_PATH = 100
"""Bytes of a socket's path; Linux allows 107."""
WAIT_S = 120.0
ROOM = "-" * 1024
"""An argument of the server, so that a fork can show a longer command line (process_title.py)."""
FIRST_SPARE_FD = 200
"""File descriptors from here on are free in the programs that are started."""


def install_interpreter(folder: Path) -> Path | None:
    """Write the interpreter into `folder` and return its path; None if this system can't have it.

    Its server ends with the tests.
    """
    address = folder / "preloaded"
    if not _has_pidfd() or len(str(address)) > MAX_SOCKET_PATH:
        return None
    with (folder / "python.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = folder / "bin" / "python"
        if not path.exists():
            owner = os.getppid() if os.environ.get("PYTEST_XDIST_WORKER") else os.getpid()
            arguments = f"{REAL_PYTHON!r}, {str(address)!r}, {owner}"
            path.parent.mkdir()
            path.write_text(
                f"#!{REAL_PYTHON}\nimport sys\nsys.path.insert(1, {str(Path(__file__).parent)!r})\n"
                f"import preloaded\npreloaded.become({arguments})\n"
            )
            path.chmod(0o700)
            command = path.with_name("cloudft")
            command.write_text(f'#!/bin/sh\nexec {path} -m cloudft "$@"\n')
            command.chmod(0o700)
    return path


def _has_pidfd() -> bool:
    """Return whether `select` can wait for a process: on Linux from 5.3."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


def interpreter_path() -> str:
    """Return the path of the interpreter, for command lines in tests."""
    return os.environ.get(PYTHON, REAL_PYTHON)


def become(real: str, address: str, owner: int) -> None:
    """Act as the interpreter: fork the trainer's programs, run other modules in this process."""
    shim, *arguments = sys.argv
    if arguments[:1] != ["-m"]:
        os.execv(real, [real, *arguments])
    program = arguments[1]
    if program.startswith("local_backend.") and program not in NOT_FORKED:
        _run_forked(shim, arguments[1:], _connect([real, __file__, address, str(owner), ROOM]))
    sys.executable, sys.argv, sys.path[:2] = shim, arguments[1:], [os.getcwd()]
    runpy.run_module(program, run_name="__main__", alter_sys=True)


# In the process that a test started, which represents the forked one.


def _run_forked(shim: str, arguments: Sequence[str], link: socket.socket) -> NoReturn:
    """Have the server fork a program, pass signals to it, and exit as it exits."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: link.send(bytes([received])))
    fds = [fd for fd in _open_files() if fd != link.fileno()]
    request = {
        "arguments": arguments,
        "cwd": os.getcwd(),
        "env": dict(os.environ),
        "fds": fds,
        "shim": shim,
    }
    content = json.dumps(request).encode()
    socket.send_fds(link, [len(content).to_bytes(8, "big")], fds)
    link.sendall(content)
    reply = link.recv(8)
    code = int.from_bytes(reply, "big", signed=True) if reply else -signal.SIGKILL
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _open_files() -> list[int]:
    descriptors = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the folder itself, closed meanwhile
            os.fstat(int(name))
            descriptors.append(int(name))
    return descriptors


def _connect(server: Sequence[str]) -> socket.socket:
    """Return a connection to the server; start the server if it does not run yet."""
    address = Path(server[2])
    with address.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not address.exists():
            environ = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
            with address.with_suffix(".log").open("ab") as log:
                subprocess.Popen(
                    server,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    env=environ,
                )
            until = time.monotonic() + WAIT_S
            while not address.exists() and time.monotonic() < until:
                time.sleep(0.02)
    link = socket.socket(socket.AF_UNIX)
    link.connect(str(address))
    return link


# In the server.


def serve(address: Path, owner: int) -> None:
    """Import what is slow to import, then fork each requested program, until the owner is gone."""
    for name in THIRD_PARTY:
        with contextlib.suppress(ImportError):
            __import__(name)
    gc.freeze()  # no collection in a fork copies these pages
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the supervisors
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{address}.new")
        listener.listen(64)
        os.rename(f"{address}.new", address)
        listener.settimeout(1.0)
        while Path(f"/proc/{owner}").exists():
            with contextlib.suppress(TimeoutError):
                link, _ = listener.accept()
                if os.fork() == 0:
                    _supervise(link)
                link.close()


def _supervise(link: socket.socket) -> NoReturn:
    """Fork a program, and wait until it exits or the process that requested it does."""
    link.setblocking(True)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, fds, *_ = socket.recv_fds(link, 8, 64)
    size, content = int.from_bytes(head, "big"), b""
    while len(content) < size:
        content += link.recv(size - len(content))
    request = json.loads(content)
    child = os.fork()
    if child == 0:
        link.close()
        _adopt_request(request, fds)
        _run_program(request["arguments"][0])
    for fd in fds:
        os.close(fd)
    ended = os.pidfd_open(child)
    while True:
        ready, _, _ = select.select([link, ended], [], [])
        if ended in ready:
            break
        received = link.recv(1)
        os.kill(child, received[0] if received else signal.SIGKILL)
        if not received:
            break
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    with contextlib.suppress(OSError):
        link.sendall(code.to_bytes(8, "big", signed=True))
    os._exit(0)


def _adopt_request(request: Mapping[str, Any], fds: Sequence[int]) -> None:
    """Take over the files, folder, environment and arguments of a request."""
    os.setsid()
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD, FIRST_SPARE_FD) for fd in fds]
    os.closerange(0, FIRST_SPARE_FD)
    for fd, number in zip(moved, request["fds"], strict=True):
        os.dup2(fd, number, inheritable=True)
        os.close(fd)
    restore_process_state(request["cwd"], request["env"])
    sys.executable, sys.path[0] = request["shim"], request["cwd"]
    sys.argv = list(request["arguments"])


def restore_process_state(folder: str, environ: Mapping[str, str]) -> None:
    """Set the streams, folder and environment of a process just forked.

    Its file descriptors 0, 1 and 2 are those of the program already.
    """
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", 1, closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    random.seed()


def _run_program(program: str) -> NoReturn:
    """Run a program, and exit without the interpreter's own shutdown, which takes a second."""
    try:
        runpy.run_module(program, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
