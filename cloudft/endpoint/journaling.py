"""What a container prints, as events of CloudWatch Logs."""

from __future__ import annotations

import threading
import time
from typing import Any

GROUP = "/aws/sagemaker/TrainingJobs"
EVERY_S = 0.2


class Stream:
    """One log stream. Lines go there a few times a second, all of them before `close` returns."""

    def __init__(self, logs: Any, name: str) -> None:
        self._logs, self._name = logs, name
        self._lines: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()
        _make(logs, name)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def tell(self, line: str) -> None:
        """One line, now."""
        if line:
            with self._lock:
                event = {"timestamp": int(time.time() * 1000), "message": line}
                self._lines.append(event)

    def _work(self) -> None:
        while not self._closed.wait(EVERY_S):
            self._send()

    def _send(self) -> None:
        with self._lock:
            lines, self._lines = self._lines, []
        if lines:
            self._logs.put_log_events(logGroupName=GROUP, logStreamName=self._name, logEvents=lines)

    def close(self) -> None:
        """Send the rest."""
        self._closed.set()
        self._thread.join()
        self._send()


def _make(logs: Any, name: str) -> None:
    there = logs.exceptions.ResourceAlreadyExistsException
    for make, what in (
        (logs.create_log_group, {"logGroupName": GROUP}),
        (logs.create_log_stream, {"logGroupName": GROUP, "logStreamName": name}),
    ):
        try:
            make(**what)
        except there:
            continue
