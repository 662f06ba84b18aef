"""Write a container's output to CloudWatch Logs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypedDict

from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from botocore.client import BaseClient

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
FLUSH_INTERVAL_S = 0.2


class LogEvent(TypedDict):
    """An event of PutLogEvents. `timestamp` is in milliseconds since 1970."""

    timestamp: int
    message: str


class LogStream:
    """One log stream. Lines are sent every FLUSH_INTERVAL_S, the last ones before `close` returns.

    If the job's role may not write logs, nothing is written: as on SageMaker, the job runs on.
    """

    def __init__(self, logs: BaseClient, name: str) -> None:
        self._logs, self._name = logs, name
        self._events: list[LogEvent] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._denied = not _call_unless_denied(lambda: _create_log_stream(logs, name))
        self._thread = threading.Thread(target=self._flush_periodically, daemon=True)
        self._thread.start()

    def write_line(self, line: str) -> None:
        """Add a line with the current time. Empty lines are dropped: CloudWatch refuses them."""
        if line:
            with self._lock:
                event: LogEvent = {"timestamp": int(time.time() * 1000), "message": line}
                self._events.append(event)

    def _flush_periodically(self) -> None:
        while not self._closed.wait(FLUSH_INTERVAL_S):
            self._flush()

    def _flush(self) -> None:
        with self._lock:
            events, self._events = self._events, []
        if events and not self._denied:
            stream = {"logGroupName": LOG_GROUP, "logStreamName": self._name}
            self._denied = not _call_unless_denied(
                lambda: self._logs.put_log_events(**stream, logEvents=events)
            )

    def close(self) -> None:
        """Send the remaining lines."""
        self._closed.set()
        # Joined first: two flushes at a time could send the lines out of order.
        self._thread.join()
        self._flush()


def _call_unless_denied(call: Callable[[], object]) -> bool:
    """Make a call, and return False if it is denied. Raises ClientError for other errors."""
    try:
        call()
    except ClientError as error:
        if error.response["Error"]["Code"] != "AccessDenied":
            raise
        return False
    return True


def _create_log_stream(logs: BaseClient, name: str) -> None:
    """Create the log group and the stream, unless they exist."""
    exists = logs.exceptions.ResourceAlreadyExistsException
    for create, arguments in (
        (logs.create_log_group, {"logGroupName": LOG_GROUP}),
        (logs.create_log_stream, {"logGroupName": LOG_GROUP, "logStreamName": name}),
    ):
        try:
            create(**arguments)
        except exists:
            continue
