"""What a container prints, as events of CloudWatch Logs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

GROUP = "/aws/sagemaker/TrainingJobs"
EVERY_S = 0.2


class Stream:
    """One log stream. Lines go there a few times a second, all of them before `close` returns.

    Without the permission to write it there is none: as on SageMaker, the job runs on.
    """

    def __init__(self, logs: Any, name: str) -> None:
        self._logs, self._name = logs, name
        self._lines: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._denied = not _may(lambda: _make(logs, name))
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
        if lines and not self._denied:
            where = {"logGroupName": GROUP, "logStreamName": self._name}
            self._denied = not _may(lambda: self._logs.put_log_events(**where, logEvents=lines))

    def close(self) -> None:
        """Send the rest."""
        self._closed.set()
        self._thread.join()
        self._send()


def _may(call: Callable[[], Any]) -> bool:
    """Make a call; False when it is denied."""
    try:
        call()
    except ClientError as error:
        if error.response["Error"]["Code"] != "AccessDenied":
            raise
        return False
    return True


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
