"""Fork trainers from a process that has imported all they need: `python -m local_backend.warm`.

`cloudft` runs it while it prepares a job, or for a command that trains several jobs one after
another. It imports what the first message on its socket says, then forks a supervisor for each job
that it receives, which forks the trainer. Both are sessions of their own: nothing that happens to
this process, or to another job, reaches them. It exits when the other end of the socket is closed.

Only imports have run before a fork: none of torch's threads, no random number. So a forked trainer
computes what one that was started on its own computes.

Messages (JSON) from the other end: `{"method", "fsdp", "models": [WEIGHTS, ...]}` first; then for
each job `{"jobDir", "threads"}` (null: all cores) with two file descriptors, the job's held lock
and its log; or, to answer prompts, `{"answer": JOB_DIR}` with the standard streams of
inference/generate.py. The answer `{"pid"}` comes from the forked process itself.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from local_backend.__main__ import TrainerProcess, start_trainers, supervise
from local_backend.job_dir import JobDir
from local_backend.lean_imports import (
    allow_lean_imports,
    import_transformers,
    lean_imports_suffice,
)
from local_backend.models.weights import find_model_folder
from local_backend.process_title import set_command_line

MESSAGE_BYTES = 65536


def main(argv: Sequence[str] | None = None) -> int:
    """Import, then fork a supervisor for each job until the socket is closed."""
    parser = argparse.ArgumentParser(prog="python -m local_backend.warm", description=__doc__)
    parser.add_argument("--socket-fd", type=int, required=True)
    parser.add_argument("room", nargs="?", help="room for the command lines of the forks")
    args = parser.parse_args(argv)
    set_command_line([sys.executable, "-m", "local_backend.warm"])  # without the room
    with socket.socket(fileno=args.socket_fd) as link:
        gc.disable()  # as in libraries.pause_collection
        importlib.import_module("torch")  # in any case; the job is not known yet
        first, _ = receive(link)
        if first is None:
            return 0
        is_lean = preload(first)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the supervisors
        while True:
            message, fds = receive(link)
            if message is None:
                return 0
            if os.fork() == 0:
                if "answer" in message:
                    run_generate(link, JobDir(message["answer"]), fds)
                run_supervisor(link, message, fds, is_lean)
            for fd in fds:
                os.close(fd)


def receive(link: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """Return the next message and its file descriptors; None at the end."""
    content, fds, _, _ = socket.recv_fds(link, MESSAGE_BYTES, 8)
    return (json.loads(content) if content else None), list(fds)


def preload(first: dict[str, Any]) -> bool:
    """Import what trainers of such a job import; return whether that was the lean import."""
    allow_lean_imports()
    is_lean = import_transformers(
        lean=lean_imports_suffice(first["method"], first["fsdp"], first["models"])
    )
    importlib.import_module("local_backend.train")
    for weights in first["models"]:
        _import_family(find_model_folder(weights))
    gc.freeze()  # no collection in a fork copies these pages
    return is_lean


def _import_family(folder: Path | None) -> None:
    """Import the module of a model's family, which would be imported when it is loaded."""
    with contextlib.suppress(ImportError, OSError, ValueError, KeyError, TypeError):
        assert folder is not None
        family = json.loads((folder / "config.json").read_bytes())["model_type"].replace("-", "_")
        importlib.import_module(f"transformers.models.{family}.modeling_{family}")


def run_supervisor(
    link: socket.socket, message: Mapping[str, Any], fds: list[int], is_lean: bool
) -> NoReturn:
    """Supervise a job in this process, which was just forked, and exit."""
    job_dir, threads = JobDir(message["jobDir"]), message["threads"]

    def run() -> int:
        lock, log = fds
        gc.enable()
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        set_command_line([sys.executable, "-m", "local_backend", str(job_dir.path)])
        with contextlib.suppress(OSError):  # the other end may be gone: the job is here
            link.send(json.dumps({"pid": os.getpid()}).encode())
        link.close()
        if not can_fork(job_dir, is_lean):
            return supervise(job_dir, lock, start_trainers)
        return supervise(job_dir, lock, lambda job, _lock: fork_trainer(job, threads))

    _run_and_exit(run)


def run_generate(link: socket.socket, job_dir: JobDir, fds: list[int]) -> NoReturn:
    """Answer prompts for a job's models in this process, which was just forked, and exit."""

    def run() -> int:
        os.setsid()
        gc.enable()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number, fd in enumerate(fds):
            os.dup2(fd, number)
            os.close(fd)
        sys.argv = ["local_backend.inference.generate", str(job_dir.path)]
        set_command_line([sys.executable, "-m", *sys.argv])
        link.send(json.dumps({"pid": os.getpid()}).encode())
        link.close()
        return int(importlib.import_module(sys.argv[0]).main())

    _run_and_exit(run)


def can_fork(job_dir: JobDir, is_lean: bool) -> bool:
    """Return whether a trainer of the job imports nothing else than was imported here."""
    request = job_dir.read_request()
    models = [request["model"]["weights"]]
    if "distillation" in request:
        models.append(request["distillation"]["teacher"]["weights"])
    if request.get("processes", 1) != 1:
        return False
    return not is_lean or lean_imports_suffice(
        request["method"], request.get("fsdp", False), models
    )


def fork_trainer(job_dir: JobDir, threads: int | None) -> list[TrainerProcess]:
    """Fork the trainer of a job with one process, which computes with so many threads."""
    pid = os.fork()
    if pid:
        return [ForkedProcess(pid)]
    path = str(job_dir.path)
    sys.argv = ["local_backend.train", path]
    set_command_line([sys.executable, "-m", *sys.argv])
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    train = importlib.import_module("local_backend.train")
    if threads is not None:
        importlib.import_module("local_backend.device").share_cores(threads)
    _run_and_exit(lambda: int(train.main([path])))


def _run_and_exit(run: Callable[[], int]) -> NoReturn:
    """Exit with what `run` returns, and never return into the process that this is a fork of."""
    code = 1
    try:
        code = run()
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)


class ForkedProcess:
    """A child process that was forked, with what a supervisor uses of `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal; None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process, unless it has ended."""
        self.send_signal(signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
