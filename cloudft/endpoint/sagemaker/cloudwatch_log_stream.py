"""What a container prints, as events of CloudWatch Logs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
FLUSH_INTERVAL_S = 0.2


class LogStream:
    """One log stream. Lines go there a few times a second, all of them before `close` returns.

    Without the permission to write it there is none: as on SageMaker, the job runs on.
    """

    def __init__(self, logs: Any, name: str) -> None:
        self._logs, self._name = logs, name
        self._lines: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._denied = not _call_unless_denied(lambda: _create_log_stream(logs, name))
        self._thread = threading.Thread(target=self._flush_periodically, daemon=True)
        self._thread.start()

    def write_line(self, line: str) -> None:
        """One line, now."""
        if line:
            with self._lock:
                event = {"timestamp": int(time.time() * 1000), "message": line}
                self._lines.append(event)

    def _flush_periodically(self) -> None:
        while not self._closed.wait(FLUSH_INTERVAL_S):
            self._flush()

    def _flush(self) -> None:
        with self._lock:
            lines, self._lines = self._lines, []
        if lines and not self._denied:
            where = {"logGroupName": LOG_GROUP, "logStreamName": self._name}
            self._denied = not _call_unless_denied(
                lambda: self._logs.put_log_events(**where, logEvents=lines)
            )

    def close(self) -> None:
        """Send the rest."""
        self._closed.set()
        self._thread.join()
        self._flush()


def _call_unless_denied(call: Callable[[], Any]) -> bool:
    """Make a call; False when it is denied."""
    try:
        call()
    except ClientError as error:
        if error.response["Error"]["Code"] != "AccessDenied":
            raise
        return False
    return True


def _create_log_stream(logs: Any, name: str) -> None:
    there = logs.exceptions.ResourceAlreadyExistsException
    for make, what in (
        (logs.create_log_group, {"logGroupName": LOG_GROUP}),
        (logs.create_log_stream, {"logGroupName": LOG_GROUP, "logStreamName": name}),
    ):
        try:
            make(**what)
        except there:
            continue
