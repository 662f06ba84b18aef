"""Wait for, find, kill and read what other processes do."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Value = TypeVar("Value")
Cli = Callable[..., "subprocess.CompletedProcess[str]"]
"""The `cli` fixture: arguments in, exit code and output out."""
JobFile = Callable[..., Path]
"""The `job_file` fixture; see write_job_file in conftest.py."""


def wait_until(condition: Callable[[], Value], what: str, *, seconds: float = 60.0) -> Value:
    """Return the first true value of `condition`, polled until then.

    Fails after `seconds` with `what`, which says what the test waits for.
    """
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.005)


def read_json(path: Path) -> Any:
    """Return the value of a JSON file; None if it does not exist."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None


def read_jsonl(path: Path) -> list[Any]:
    """Return the values of the complete lines of a JSONL file so far."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in content.splitlines(True) if line.endswith(b"\n")]


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to a process that may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def is_running(pid: int) -> bool:
    """Return whether a process is there, and no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def find_processes(command_line_part: str) -> list[int]:
    """Return the ids of processes whose command line contains a text."""
    table = subprocess.run(
        ["ps", "-axwwo", "pid=,args="], capture_output=True, text=True, check=True
    )
    rows = [line.split(maxsplit=1) for line in table.stdout.splitlines()]
    return [int(pid) for pid, *command in rows if command_line_part in " ".join(command)]
