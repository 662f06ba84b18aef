"""A Python whose `-m local_backend.*` is forked from a process that has loaded torch already.

Loading torch and transformers takes some five seconds of a core, a tiny model's training a fraction
of one. What is forked is a process of its own, with its own code, streams, folder, environment and
end; it dies with the process that was started for it, and that one ends as it does. Our own modules
are imported anew in each.

`install` writes that interpreter. forked.py gives it to what it starts; a test that needs trainers
started as they are elsewhere takes the fixture `plain_starts`.
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
"""The variable that names it; without it, it is the one that runs the tests."""
REAL_PYTHON = sys.executable
THIRD_PARTY = (
    *("torch", "torch.optim", "torch._dynamo", "transformers", "transformers.modeling_utils"),
    *("transformers.models.auto.modeling_auto", "transformers.models.auto.tokenization_auto"),
    *("transformers.models.llama.modeling_llama", "transformers.generation", "jinja2"),
    *("transformers.tokenization_utils_tokenizers", "safetensors.torch"),
)
NOT_FORKED = {"local_backend.sagemaker"}
"""It only starts others, and lives and dies in one process group with them."""
MAX_SOCKET_PATH = 100
"""Of a socket; Linux takes 107 bytes."""
WAIT_S = 120.0
FIRST_SPARE_FD = 200
"""File descriptors from here on are not those of what is started."""


def install_interpreter(folder: Path) -> Path | None:
    """Write it into `folder`; None where this system can't have it. Its server ends with us."""
    address = folder / "preloaded"
    if not _has_pidfd() or len(str(address)) > MAX_SOCKET_PATH:
        return None
    with (folder / "python.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = folder / "bin" / "python"
        if not path.exists():
            owner = os.getppid() if os.environ.get("PYTEST_XDIST_WORKER") else os.getpid()
            given = f"{REAL_PYTHON!r}, {str(address)!r}, {owner}"
            path.parent.mkdir()
            path.write_text(
                f"#!{REAL_PYTHON}\nimport sys\nsys.path.insert(1, {str(Path(__file__).parent)!r})\n"
                f"import preloaded\npreloaded.become({given})\n"
            )
            path.chmod(0o700)
            command = path.with_name("cloudft")
            command.write_text(f'#!/bin/sh\nexec {path} -m cloudft "$@"\n')
            command.chmod(0o700)
    return path


def _has_pidfd() -> bool:
    """True on Linux from 5.3: a process can be waited for beside a socket."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


def interpreter_path() -> str:
    """It, for a command line of tests."""
    return os.environ.get(PYTHON, REAL_PYTHON)


def become(real: str, address: str, owner: int) -> None:
    """What that interpreter does: fork the trainer's programs, run other modules here."""
    shim, *words = sys.argv
    if words[:1] != ["-m"]:
        os.execv(real, [real, *words])
    program = words[1]
    if program.startswith("local_backend.") and program not in NOT_FORKED:
        _run_forked(shim, words[1:], _connect([real, __file__, address, str(owner)]))
    sys.executable, sys.argv, sys.path[:2] = shim, words[1:], [os.getcwd()]
    runpy.run_module(program, run_name="__main__", alter_sys=True)


# The process that was started: it stands for the forked one.


def _run_forked(shim: str, words: Sequence[str], link: socket.socket) -> NoReturn:
    """Have it forked, pass signals on, end as it ends."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: link.send(bytes([received])))
    fds = [fd for fd in _open_files() if fd != link.fileno()]
    told = {"words": words, "cwd": os.getcwd(), "env": dict(os.environ), "fds": fds, "shim": shim}
    content = json.dumps(told).encode()
    socket.send_fds(link, [len(content).to_bytes(8, "big")], fds)
    link.sendall(content)
    answer = link.recv(8)
    code = int.from_bytes(answer, "big", signed=True) if answer else -signal.SIGKILL
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _open_files() -> list[int]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the folder itself, closed meanwhile
            os.fstat(int(name))
            found.append(int(name))
    return found


def _connect(server: Sequence[str]) -> socket.socket:
    """A connection to the server, which the first who needs it starts."""
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


# The server.


def serve(address: Path, owner: int) -> None:
    """Load what takes long, then fork whatever is asked, until the owner is gone."""
    for name in THIRD_PARTY:
        with contextlib.suppress(ImportError):
            __import__(name)
    gc.freeze()  # what is forked leaves these pages alone
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that look after one
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
    """Fork it and wait for its end or for that of who has asked."""
    link.setblocking(True)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, fds, *_ = socket.recv_fds(link, 8, 64)
    size, content = int.from_bytes(head, "big"), b""
    while len(content) < size:
        content += link.recv(size - len(content))
    asked = json.loads(content)
    child = os.fork()
    if child == 0:
        link.close()
        _adopt_request(asked, fds)
        _run_program(asked["words"][0])
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


def _adopt_request(asked: Mapping[str, Any], fds: Sequence[int]) -> None:
    """Take over files, folder, environment and arguments of what is asked."""
    os.setsid()
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD, FIRST_SPARE_FD) for fd in fds]
    os.closerange(0, FIRST_SPARE_FD)
    for fd, number in zip(moved, asked["fds"], strict=True):
        os.dup2(fd, number, inheritable=True)
        os.close(fd)
    restore_process_state(asked["cwd"], asked["env"])
    sys.executable, sys.argv, sys.path[0] = asked["shim"], list(asked["words"]), asked["cwd"]


def restore_process_state(folder: str, environ: Mapping[str, str]) -> None:
    """In a process just forked, its files 0, 1 and 2 in place: streams, folder, environment."""
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", 1, closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    random.seed()


def _run_program(program: str) -> NoReturn:
    """Run it to its end, and end without taking apart all that was loaded: that takes a second."""
    try:
        runpy.run_module(program, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
