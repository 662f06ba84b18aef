"""Run one job and make sure that it ends: `python -m local_backend JOB_DIR`.

Two processes: this supervisor, which imports nothing heavy and only waits, and the trainer (several
of them if the job has several processes). So a trainer that is killed, or that runs out of memory,
still gets an ending that names the signal.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from local_backend.job_dir import FAILED, JOB, LOCK, PIDS, STOPPED, JobDir, acquire_lock, write_json

POLL_S = 0.05
GRACE_S = 20.0
"""Seconds that the other processes of a job get to end after one has failed."""
OUT_OF_MEMORY_HINT = (
    "SIGKILL is what the kernel sends when memory runs out: if you did not kill it yourself, try a"
    " smaller local.micro_batch_size or local.max_length, then `cloudft resume`."
)


def main(argv: list[str] | None = None) -> int:
    """Supervise one run. Return 0 when the job's ending is not Failed, else 1."""
    parser = argparse.ArgumentParser(prog="python -m local_backend", description=__doc__)
    parser.add_argument("job_dir", type=Path)
    parser.add_argument("--lock-fd", type=int, help="an inherited descriptor that holds the lock")
    args = parser.parse_args(argv)
    job_dir = JobDir(args.job_dir)
    if not (job_dir / JOB).is_file():
        parser.error(f"{job_dir / JOB}: no such file")
    lock = args.lock_fd if args.lock_fd is not None else acquire_lock(job_dir / LOCK)
    if lock is None:
        parser.error(f"{job_dir.path}: another trainer is already running this job")
    return supervise(job_dir, lock, start_trainers)


def supervise(
    job_dir: JobDir, lock: int, start: Callable[[JobDir, int], Sequence[TrainerProcess]]
) -> int:
    """Run a job whose lock is held. Return 0 when its ending is not Failed, else 1."""
    job_dir.remove_leftovers()
    job_dir.reserve_space()
    code = run_trainer(job_dir, start(job_dir, lock))
    job_dir.remove_leftovers()
    if code == 0 and group_rank() > 0:  # the first machine's folder has the ending
        job_dir.release_space()
        return 0
    write_missing_ending(job_dir, code)
    job_dir.release_space()
    ending = job_dir.read_ending()
    return 0 if ending and ending["status"] != FAILED else 1


class TrainerProcess(Protocol):
    """What is used of a trainer's process: as `subprocess.Popen` has it."""

    pid: int

    @property
    def returncode(self) -> int | None:
        """The exit status that `poll` has seen; negative for a signal."""

    def poll(self) -> int | None:
        """Return the exit status; None while the process runs."""

    def send_signal(self, sig: int, /) -> None:
        """Send a signal, unless the process has ended."""

    def kill(self) -> None:
        """Kill the process, unless it has ended."""


def start_trainers(job_dir: JobDir, lock: int) -> Sequence[TrainerProcess]:
    """Start the trainer processes.

    They inherit `lock`, so the job stays locked while any of them lives.
    """
    command = [sys.executable, "-m", "local_backend.train", str(job_dir.path)]
    return [
        subprocess.Popen(command, pass_fds=(lock,), env=os.environ | variables)
        for variables in rank_environments(resolve_process_count(job_dir))
    ]


def run_trainer(job_dir: JobDir, children: Sequence[TrainerProcess]) -> int:
    """Forward stop signals to the trainer processes, and return their exit status."""
    pids = [child.pid for child in children]
    write_json(job_dir / PIDS, {"pid": pids[0], "others": pids[1:], "supervisor": os.getpid()})

    def forward_signal(received: int, _frame: object) -> None:
        for child in children:
            child.send_signal(received)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, forward_signal)
    return wait_for_children(children)


def resolve_process_count(job_dir: JobDir) -> int:
    """Return how many trainer processes to start: `auto` is one for each NVIDIA GPU."""
    requested = job_dir.read_request().get("processes", 1)
    if requested != "auto":
        return int(requested)
    # In a process of its own: importing torch takes memory that the trainers need.
    code = "import torch; print(torch.cuda.device_count())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return max(1, int(done.stdout))


def rank_environments(count: int) -> Iterator[dict[str, str]]:
    """Yield the environment variables of each trainer process, named as torchrun names them.

    A single process needs none. With several machines, each with its own job folder and the same
    number of trainers, GROUP_RANK of GROUP_WORLD_SIZE identifies the machine, and all processes
    meet at MASTER_ADDR.
    """
    world_size = count * int(os.environ.get("GROUP_WORLD_SIZE", "1"))
    if world_size == 1:
        yield {}
        return
    threads = str(max(1, (os.cpu_count() or 1) // count))
    for local_rank in range(count):
        rank = {"RANK": str(group_rank() * count + local_rank), "LOCAL_RANK": str(local_rank)}
        yield {"OMP_NUM_THREADS": threads, "WORLD_SIZE": str(world_size), **rank}


def group_rank() -> int:
    """Return this machine's rank among the job's machines."""
    return int(os.environ.get("GROUP_RANK", "0"))


def wait_for_children(children: Sequence[TrainerProcess]) -> int:
    """Wait for all trainers. Return the first exit status that is not 0, else 0.

    Once one has failed, the others get GRACE_S seconds to end and are then killed.
    """
    failed, deadline = 0, None
    while any(child.poll() is None for child in children):
        failed = failed or next((child.returncode for child in children if child.returncode), 0)
        if failed and deadline is None:
            deadline = time.monotonic() + GRACE_S
        if deadline is not None and time.monotonic() > deadline:
            for child in children:
                child.kill()
            deadline = None  # killed once; they only have to be reaped
        time.sleep(POLL_S)
    return failed or next((child.returncode for child in children if child.returncode), 0)


def write_missing_ending(job_dir: JobDir, code: int) -> None:
    """Write an ending for a run without one: its signal or exit status, and the last log lines."""
    if job_dir.read_ending() is not None:
        return
    if code == -signal.SIGTERM:  # the stop came before the trainer had its signal handler
        job_dir.write_ending(STOPPED)
        return
    if code < 0:
        name = signal.Signals(-code).name
        message = f"The trainer was killed by {name}."
        if name == "SIGKILL":
            message = f"{message} {OUT_OF_MEMORY_HINT}"
    else:
        name = None
        message = f"The trainer exited with status {code} and left no result."
    lines = job_dir.last_log_lines()
    if lines:
        message += "\nLast log lines:\n" + "\n".join(lines)
    job_dir.write_ending(FAILED, message, signal=name)


if __name__ == "__main__":
    sys.exit(main())
