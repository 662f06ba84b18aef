"""A program of the trainer ends with the process that started it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

PROGRAM = """
import time
from local_backend.process_exit import exit_with_parent
exit_with_parent()
try:
    print("started", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("cleaned up", flush=True)
"""


@pytest.mark.parametrize("interrupts", [signal.SIG_DFL, signal.SIG_IGN], ids=["", "in-background"])
def test_it_cleans_up_when_its_parent_has_ended(interrupts: signal.Handlers) -> None:
    """A shell starts background commands with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, interrupts)
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "started\n"
        start = time.monotonic()
        process.stdin.close()
        assert process.stdout.read() == "cleaned up\n"
        assert time.monotonic() - start < 4.0, "it was ended by force"
