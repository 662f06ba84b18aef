"""`python -m local_backend JOB_DIR`: run one job and see to it that it ends.

Two processes: this one, which loads nothing and only waits, and the trainer. So a trainer that is
killed, or that runs out of memory, still gets an ending that names the signal.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

from local_backend.job_dir import FAILED, JOB, LOCK, PIDS, STOPPED, JobDir, take_lock, write_json

OUT_OF_MEMORY_HINT = (
    "SIGKILL is what the kernel sends when memory runs out: if you did not kill it yourself, try a"
    " smaller local.micro_batch_size or local.max_length, then `cloudft resume`."
)


def main(argv: list[str] | None = None) -> int:
    """Supervise one run; the exit status is 0 when the job's ending is not Failed."""
    parser = argparse.ArgumentParser(prog="python -m local_backend", description=__doc__)
    parser.add_argument("job_dir", type=Path)
    parser.add_argument("--lock-fd", type=int, help="an inherited descriptor that holds the lock")
    args = parser.parse_args(argv)
    job_dir = JobDir(args.job_dir)
    if not (job_dir / JOB).is_file():
        parser.error(f"{job_dir / JOB}: no such file")
    lock = args.lock_fd if args.lock_fd is not None else take_lock(job_dir / LOCK)
    if lock is None:
        parser.error(f"{job_dir.path}: a trainer is at work here already")
    job_dir.clear_leftovers()
    code = run_trainer(job_dir, lock)
    job_dir.clear_leftovers()
    settle(job_dir, code)
    ending = job_dir.ended()
    return 0 if ending and ending["status"] != FAILED else 1


def run_trainer(job_dir: JobDir, lock: int) -> int:
    """Start the trainer with the lock in its hand, pass stop signals on, wait for its end."""
    child = subprocess.Popen(
        [sys.executable, "-m", "local_backend.train", str(job_dir.path)],
        pass_fds=(lock,),
    )
    write_json(job_dir / PIDS, {"pid": child.pid, "supervisor": os.getpid()})
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: child.send_signal(received))
    return child.wait()


def settle(job_dir: JobDir, code: int) -> None:
    """Give a run without an ending one: the signal or exit status, and the last words."""
    if job_dir.ended() is not None:
        return
    if code == -signal.SIGTERM:  # asked to stop before it could listen
        job_dir.end(STOPPED)
        return
    if code < 0:
        name = signal.Signals(-code).name
        what = f"The trainer was killed by {name}."
        if name == "SIGKILL":
            what = f"{what} {OUT_OF_MEMORY_HINT}"
    else:
        name = None
        what = f"The trainer exited with status {code} and left no result."
    lines = job_dir.last_log_lines()
    if lines:
        what += "\nLast log lines:\n" + "\n".join(lines)
    job_dir.end(FAILED, what, signal=name)


if __name__ == "__main__":
    sys.exit(main())
