"""The progress bar on a terminal, and Ctrl-C."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import time
from pathlib import Path

import preloaded
import tiny
from processes import Cli, JobFile, read_jsonl, wait_until


class Terminal:
    """A `cloudft` process on a pseudo-terminal, 100 columns wide."""

    def __init__(self, *args: str | Path) -> None:
        self.main, side = pty.openpty()
        self.process = subprocess.Popen(
            [preloaded.interpreter_path(), "-m", "cloudft", *map(str, args)],
            stdin=side,
            stdout=side,
            stderr=side,
            env=os.environ | {"TERM": "xterm", "COLUMNS": "100", "LINES": "30"},
            start_new_session=True,
            # A shell's background jobs ignore Ctrl-C, and so would what they start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        os.close(side)
        self.screen = ""

    def read(self) -> bool:
        """Add new output to `screen`. Return False when the process has ended."""
        try:
            self.screen += os.read(self.main, 65536).decode()
        except OSError:
            return False
        return True

    def read_until(self, pattern: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not re.search(pattern, self.screen):
            assert self.read() and time.monotonic() < end, self.screen

    def end(self) -> int:
        """Read until the process ends. Return its exit code."""
        while self.read():
            pass
        os.close(self.main)
        return self.process.wait(timeout=10)


def test_a_bar_with_loss_speed_and_time_left(job_file: JobFile) -> None:
    path = job_file(validation=tiny.pairs(4), hyperparameters={"epochCount": 100})
    terminal = Terminal("submit", path, "--wait")
    terminal.read_until(r"training .*\d+/400  epoch \d+  loss \d\.\d{4}  \d+ tok/s  \d:\d\d left")
    assert terminal.end() == 0
    assert re.search(r"Completed .*400/400", terminal.screen)
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", terminal.screen)
    bars = [line for line in re.split(r"[\r\n]+", plain) if "━" in line]
    assert bars and max(map(len, bars)) <= 100, "it fits the terminal"


def test_control_c_ends_the_watching_and_not_the_job(
    cli: Cli, job_file: JobFile, home: Path
) -> None:
    path = job_file(hyperparameters={"epochCount": 500})
    terminal = Terminal("submit", path, "--wait")
    terminal.read_until("training")
    os.killpg(terminal.process.pid, signal.SIGINT)  # as a terminal does
    assert terminal.end() == 130
    assert "Traceback" not in terminal.screen
    assert "keeps running" in terminal.screen
    [job] = (home / "jobs").iterdir()
    done = len(read_jsonl(job / "metrics.jsonl"))
    wait_until(lambda: len(read_jsonl(job / "metrics.jsonl")) > done + 5, "more steps")
    assert cli("stop", "-", "--wait").returncode == 0
    assert json.loads(cli("status", "-", "--output", "json").stdout)["status"] == "Stopped"
