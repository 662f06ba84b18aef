"""Remember which operations were called, for the status page and for tests."""

from __future__ import annotations

import threading
from collections import deque
from itertools import islice

from cloudft.endpoint.protocols.messages import OperationCall

MAX_RECORDED_CALLS = 20_000
"""Calls that are remembered; older ones are dropped."""


class CallLog:
    """The last calls, in their order. Safe for several threads."""

    def __init__(self) -> None:
        self._calls: deque[OperationCall] = deque(maxlen=MAX_RECORDED_CALLS)
        self._lock = threading.Lock()

    def record(self, call: OperationCall) -> None:
        """Append a call."""
        with self._lock:
            self._calls.append(call)

    def list_calls(self) -> list[OperationCall]:
        """Return all remembered calls, the oldest first."""
        with self._lock:
            return list(self._calls)

    def list_latest(self, count: int) -> list[OperationCall]:
        """Return the last calls, the newest first."""
        with self._lock:
            return list(islice(reversed(self._calls), count))
